"""The page: what came in and how it stands, and the two questions a load balancer asks."""
