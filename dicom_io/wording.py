"""Every word that a person reads on what we make, in every language that a destination can ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.sr.coding import Code

from dicom_io.codes import Assessment, Condition, Heading, Presence
from dicom_io.standing import Correction


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
    reasons
        Why an image is not analysed, by its reason code.
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
    reasons: Mapping[str, str]
    analysed: str
    decided: str
    not_analysed: str
    none_analysed: str
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
    corrected: str
    exchanged: str
    turned: str

    def told(self, correction: Correction, *, number: int) -> str | None:
        """How an image was analysed other than its header tells, as a sentence; None where it was as told.

        Parameters
        ----------
        number
            The image's place in the study, from 0.
        """
        steps = [self.exchanged] * correction.inverted
        steps += [self.turned.format(90 * correction.quarter_turns)] * bool(correction.quarter_turns)
        if not steps:
            return None
        how = steps[0] if len(steps) == 1 else self.both.format(*steps)
        return self.corrected.format(image=self.image.format(number + 1), how=how)


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
    reasons={
        "not_radiograph": "it is no radiograph",
        "not_human": "it is not of a human",
        "quality_control": "it is of a test object",
        "for_processing": "its values are raw, not for presentation",
        "localizer": "it is a scout view",
        "derived": "it was made from other images",
        "multi_frame": "it has more than one frame",
        "not_monochrome": "it is not in grey values",
        "body_part_missing": "it does not name the body part",
        "not_chest": "it is of another body part",
        "view_missing": "it does not name the view",
        "not_frontal": "it is no frontal view",
        "under_age": "the patient is younger than those analysed here",
        "age_missing": "it does not tell the age of the patient",
        "contradictory": "its attributes contradict each other",
        "unreadable": "its attributes cannot be read",
        "no_pixels": "it has no pixels",
        "too_small": "it is too small",
        "too_large": "it is too large",
        "empty": "hardly anything is to be seen on it",
        "saturated": "nearly all of it is black or white",
        "not_like_chest": "its pixels do not look like a frontal chest radiograph",
        "turned": "its pixels do not stand as it says",
        "repeated": "it repeats another image",
        "replaced": "another image took its place",
        "undecodable": "its pixels cannot be decoded",
        "not_dicom": "it cannot be read as DICOM",
    },
    analysed="Analysed by {model}, {time}.",
    decided="Decided by {model}, {time}.",
    not_analysed="{image} not analysed: {reason}.",
    none_analysed="AI analysed no image of this study. That says nothing about what the images show.",
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
    page="page {}",
    threshold="threshold {}",
    more="and {} more in the report",
    model="Model {}",
    corrected="{image} was analysed {how}.",
    exchanged="with bright and dark exchanged, as its header names the wrong polarity",
    turned="turned by {} degrees counter-clockwise, to stand upright",
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
        Heading.PARAMETERS: "Parámetros del algoritmo",
        Heading.KEY_OBJECT: "De interés",
        Heading.KEY_OBJECT_DESCRIPTION: "Descripción del objeto clave",
    },
    reasons={
        "not_radiograph": "no es una radiografía",
        "not_human": "no es de un ser humano",
        "quality_control": "es de un objeto de prueba",
        "for_processing": "sus valores son brutos, no para presentación",
        "localizer": "es un localizador",
        "derived": "se obtuvo a partir de otras imágenes",
        "multi_frame": "tiene más de un fotograma",
        "not_monochrome": "no está en escala de grises",
        "body_part_missing": "no indica la parte del cuerpo",
        "not_chest": "es de otra parte del cuerpo",
        "view_missing": "no indica la proyección",
        "not_frontal": "no es una proyección frontal",
        "under_age": "el paciente es más joven que los analizados aquí",
        "age_missing": "no indica la edad del paciente",
        "contradictory": "sus atributos se contradicen",
        "unreadable": "sus atributos no se pueden leer",
        "no_pixels": "no tiene píxeles",
        "too_small": "es demasiado pequeña",
        "too_large": "es demasiado grande",
        "empty": "apenas se ve nada en ella",
        "saturated": "es casi toda negra o blanca",
        "not_like_chest": "sus píxeles no parecen una radiografía frontal de tórax",
        "turned": "sus píxeles no están orientados como indica",
        "repeated": "repite otra imagen",
        "replaced": "otra imagen ocupó su lugar",
        "undecodable": "sus píxeles no se pueden decodificar",
        "not_dicom": "no se puede leer como DICOM",
    },
    analysed="Analizado por {model}, {time}.",
    decided="Decidido por {model}, {time}.",
    not_analysed="{image} no analizada: {reason}.",
    none_analysed="La IA no analizó ninguna imagen de este estudio. Eso no dice nada de lo que muestran las imágenes.",
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
    page="página {}",
    threshold="umbral {}",
    more="y {} más en el informe",
    model="Modelo {}",
    corrected="{image} se analizó {how}.",
    exchanged="con claros y oscuros invertidos, pues su cabecera indica una polaridad errónea",
    turned="girada {} grados en sentido antihorario, para quedar derecha",
)

_IN: Final = {Language.ENGLISH: ENGLISH, Language.SPANISH: SPANISH}


def wording_in(language: Language) -> Wording:
    """Return the words of a language."""
    return _IN[language]
