"""The ids of MITRE ATLAS and of the OWASP lists that findings carry: their names and where to read about them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TAXONOMY", "Entry", "entry"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a public taxonomy; ``name`` and ``url`` are empty where the id is not in the table."""

    id: str
    name: str = ""
    url: str = ""


_ATLAS = "https://atlas.mitre.org/techniques/"
_OWASP = "https://owasp.org/www-project-machine-learning-security-top-10/docs/"

# Names as of MITRE ATLAS 5.6.0, and of the OWASP Machine Learning Security Top 10 (2023, draft).
_ATLAS_NAMES = {
    "AML.T0010": "AI Supply Chain Compromise",
    "AML.T0010.002": "AI Supply Chain Compromise: Data",
    "AML.T0010.003": "AI Supply Chain Compromise: Model",
    "AML.T0011.000": "User Execution: Unsafe AI Artifacts",
    "AML.T0018": "Manipulate AI Model",
    "AML.T0018.000": "Manipulate AI Model: Poison AI Model",
    "AML.T0018.001": "Manipulate AI Model: Modify AI Model Architecture",
    "AML.T0018.002": "Manipulate AI Model: Embed Malware",
    "AML.T0019": "Publish Poisoned Datasets",
    "AML.T0020": "Poison Training Data",
    "AML.T0043.004": "Craft Adversarial Data: Insert Backdoor Trigger",
    "AML.T0058": "Publish Poisoned Models",
    "AML.T0059": "Erode Dataset Integrity",
}
_OWASP_PAGES = {
    "ML02:2023": ("Data Poisoning Attack", "ML02_2023-Data_Poisoning_Attack"),
    "ML06:2023": ("AI Supply Chain Attacks", "ML06_2023-AI_Supply_Chain_Attacks"),
    "ML07:2023": ("Transfer Learning Attack", "ML07_2023-Transfer_Learning_Attack"),
    "ML10:2023": ("Model Poisoning", "ML10_2023-Model_Poisoning"),
}

TAXONOMY: dict[str, Entry] = {
    **{key: Entry(id=key, name=f"MITRE ATLAS: {name}", url=_ATLAS + key) for key, name in _ATLAS_NAMES.items()},
    **{key: Entry(id=key, name=f"OWASP ML: {name}", url=_OWASP + page) for key, (name, page) in _OWASP_PAGES.items()},
}


def entry(key: str) -> Entry:
    """Return the entry of an id; an id that the table lacks is returned with its id alone."""
    return TAXONOMY.get(key, Entry(id=key))
