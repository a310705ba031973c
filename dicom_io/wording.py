"""Every word that a person reads on what we make, in every language that a destination can ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.sr.coding import Code

from dicom_io.codes import Assessment, Condition, Heading, Presence


class Language(StrEnum):
    """What a destination's people read."""

    ENGLISH = "en"
    SPANISH = "es"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The words of one language.

    Attributes
    ----------
    code
        Of the language, for documents that name it (RFC 5646).
    disclaimer
        On everything that a person can read.
    conditions, suspected
        A condition's name, as a bar or a heading has it; and what is said where it was found.
    presences, levels, triages
        What is said of a condition; of a study, in words of urgency; and the same within a sentence, by the level's name. Where
        nothing was flagged no word says "normal": it would be read as a rule-out.
    series
        Series Description (0008,103E) by the name of the kind, at most 64 characters.
    headings
        Code Meaning (0008,0104) of the concepts of a report in words, at most 64 characters.
    """

    code: Code
    disclaimer: str
    conditions: Mapping[Condition, str]
    suspected: Mapping[Condition, str]
    presences: Mapping[Presence, str]
    levels: Mapping[Assessment, str]
    triages: Mapping[str, str]
    series: Mapping[str, str]
    headings: Mapping[Heading, str]
    analysed: str
    nothing_flagged: str
    both: str
    undetermined: str
    undetermined_on: str
    one_image: str
    several_images: str
    kept: str
    impression: str
    triage: str
    probability: str
    shown: str
    image: str
    others: str
    scope: str
    not_ruled_out: str
    spoke_for: str
    little: str
    most: str
    nothing_spoke: str
    caution: str
    document: str
    all_images: str
    parameters: str
    limits: str
    page: str
    threshold: str
    more: str
    model: str


ENGLISH: Final = Wording(
    code=Code("en-US", "RFC5646", "English (United States)"),
    disclaimer="AI-generated. Not for primary diagnosis. Research use only.",
    conditions={Condition.COVID_19: "COVID-19", Condition.PNEUMONIA: "Pneumonia", Condition.NORMAL: "Normal"},
    suspected={Condition.COVID_19: "COVID-19 suspected", Condition.PNEUMONIA: "pneumonia suspected"},
    presences={Presence.PRESENT: "present", Presence.ABSENT: "absent", Presence.UNDETERMINED: "undetermined"},
    levels={
        Assessment.ACTIONABLE_WITHIN_MINUTES: "URGENT",
        Assessment.ACTIONABLE_WITHIN_HOURS: "HIGH",
        Assessment.ACTIONABLE_WITHIN_DAYS: "FLAGGED",
        Assessment.NORMAL: "NOT FLAGGED",
        Assessment.UNDETERMINED: "UNDETERMINED",
    },
    triages={"urgent": "urgent", "high": "high", "routine": "routine", "none": "none"},
    series={
        "sr": "AI: chest radiograph report (research use only)",
        "text_sr": "AI: chest radiograph report in words (research use only)",
        "capture": "AI: chest radiograph page (research use only)",
        "heatmap": "AI: chest radiograph heat map (research use only)",
        "segmentation": "AI: chest radiograph saliency (research use only)",
        "presentation_state": "AI: chest radiograph view (research use only)",
        "key_object": "AI: flagged chest radiographs (research use only)",
        "pdf": "AI: chest radiograph document (research use only)",
        "not_analysed": "AI: not analysed (research use only)",
    },
    headings={heading: heading.value.meaning for heading in Heading},
    analysed="Analysed by {model}, {time}.",
    nothing_flagged="no finding flagged",
    both="{} and {}",
    undetermined="undetermined: the model is not sure",
    undetermined_on="undetermined on {count} of {all} images: the model is not sure",
    one_image="1 image",
    several_images="{} images, highest of each",
    kept=", kept from an earlier result",
    impression="AI triage {level}{kept}: {findings} ({numbers}; {images}).",
    triage="AI triage of this study",
    probability="Model probability",
    shown="Shown: image {} of {}",
    image="Image {}",
    others="Highest in other images",
    scope="{}: nothing else is looked for.",
    not_ruled_out="What is not flagged is not ruled out.",
    spoke_for="Heat map: what spoke for {}",
    little="little",
    most="most",
    nothing_spoke="Nothing in this image spoke for it.",
    caution="It shows what moved the model, not where disease is.",
    document="AI result of a chest radiograph study",
    all_images="All images",
    parameters="Model and parameters",
    limits="Limits",
    page="page {} of {}",
    threshold="threshold {}",
    more="and {} more in the report",
    model="Model {}",
)

SPANISH: Final = Wording(
    code=Code("es", "RFC5646", "Spanish"),
    disclaimer="Generado por IA. No apto para diagnóstico primario. Solo para investigación.",
    conditions={Condition.COVID_19: "COVID-19", Condition.PNEUMONIA: "Neumonía", Condition.NORMAL: "Normal"},
    suspected={Condition.COVID_19: "sospecha de COVID-19", Condition.PNEUMONIA: "sospecha de neumonía"},
    presences={Presence.PRESENT: "presente", Presence.ABSENT: "ausente", Presence.UNDETERMINED: "indeterminado"},
    levels={
        Assessment.ACTIONABLE_WITHIN_MINUTES: "URGENTE",
        Assessment.ACTIONABLE_WITHIN_HOURS: "ALTA",
        Assessment.ACTIONABLE_WITHIN_DAYS: "SEÑALADO",
        Assessment.NORMAL: "SIN SEÑALAR",
        Assessment.UNDETERMINED: "INDETERMINADO",
    },
    triages={"urgent": "urgente", "high": "alto", "routine": "rutina", "none": "ninguno"},
    series={
        "sr": "IA: informe de radiografía de tórax (solo investigación)",
        "text_sr": "IA: informe de tórax en texto (solo investigación)",
        "capture": "IA: página de radiografía de tórax (solo investigación)",
        "heatmap": "IA: mapa de calor de tórax (solo investigación)",
        "segmentation": "IA: saliencia de radiografía de tórax (solo investigación)",
        "presentation_state": "IA: vista de radiografía de tórax (solo investigación)",
        "key_object": "IA: radiografías señaladas (solo investigación)",
        "pdf": "IA: documento de radiografía de tórax (solo investigación)",
        "not_analysed": "IA: no analizado (solo investigación)",
    },
    headings={
        Heading.REPORT: "Informe de diagnóstico por imagen",
        Heading.FINDINGS: "Hallazgos",
        Heading.IMPRESSIONS: "Impresiones",
        Heading.PROCEDURES: "Descripción de los procedimientos actuales",
        Heading.FINDING: "Hallazgo",
        Heading.IMPRESSION: "Impresión",
        Heading.CONCLUSION: "Conclusión",
        Heading.PROCEDURE: "Descripción del procedimiento",
    },
    analysed="Analizado por {model}, {time}.",
    nothing_flagged="ningún hallazgo señalado",
    both="{} y {}",
    undetermined="indeterminado: el modelo no está seguro",
    undetermined_on="indeterminado en {count} de {all} imágenes: el modelo no está seguro",
    one_image="1 imagen",
    several_images="{} imágenes, el máximo de cada una",
    kept=", conservado de un resultado anterior",
    impression="Triaje por IA {level}{kept}: {findings} ({numbers}; {images}).",
    triage="Triaje por IA de este estudio",
    probability="Probabilidad del modelo",
    shown="Se muestra: imagen {} de {}",
    image="Imagen {}",
    others="Máximo en otras imágenes",
    scope="{}: no se busca nada más.",
    not_ruled_out="Lo que no se señala no queda descartado.",
    spoke_for="Mapa de calor: a favor de {}",
    little="poco",
    most="máximo",
    nothing_spoke="Nada en esta imagen habló a su favor.",
    caution="Muestra qué movió al modelo, no dónde hay enfermedad.",
    document="Resultado de IA de un estudio de radiografía de tórax",
    all_images="Todas las imágenes",
    parameters="Modelo y parámetros",
    limits="Límites",
    page="página {} de {}",
    threshold="umbral {}",
    more="y {} más en el informe",
    model="Modelo {}",
)

_IN: Final = {Language.ENGLISH: ENGLISH, Language.SPANISH: SPANISH}


def wording_in(language: Language) -> Wording:
    """Return the words of a language."""
    return _IN[language]
