"""Logit standardisation, of KD, DKD and CTKD."""

from ...runs.options import loss
from ..setting import Setting

KD = {
    ("resnet56", "resnet20"): (2.0, 9.0),
    ("resnet32x4", "resnet8x4"): (2.0, 9.0),
    ("wrn_40_2", "wrn_16_2"): (2.0, 9.0),
    ("wrn_40_2", "wrn_40_1"): (2.0, 9.0),
    ("vgg13", "vgg8"): (3.0, 9.0),
    ("resnet110", "resnet32"): (2.0, 9.0),
    ("resnet110", "resnet20"): (4.0, 12.0),
    ("resnet32x4", "shufflenetv2"): (2.0, 9.0),
    ("resnet32x4", "wrn_16_2"): (3.0, 9.0),
    ("vgg13", "mobilenetv2"): (3.0, 9.0),
    ("resnet50", "mobilenetv2"): (3.0, 1.0),
}
"""Temperature and weight by pair."""

DKD = {
    ("resnet56", "resnet20"): (3.0, 18.0, 2.0),
    ("resnet32x4", "resnet8x4"): (2.0, 9.0, 8.0),
    ("wrn_40_2", "wrn_16_2"): (2.0, 12.0, 2.0),
    ("wrn_40_2", "wrn_40_1"): (2.0, 12.0, 2.0),
    ("vgg13", "vgg8"): (2.0, 15.0, 2.0),
    ("resnet110", "resnet32"): (2.0, 15.0, 2.0),
    ("resnet32x4", "shufflenetv2"): (2.0, 9.0, 8.0),
    ("vgg13", "mobilenetv2"): (3.0, 9.0, 2.0),
    ("resnet50", "mobilenetv2"): (2.0, 15.0, 2.0),
}
"""Temperature, weight of alpha and beta, and beta by pair."""

_LOGS = "the logit-standardisation repository, names of its log files"
_DEFAULT = "the logit-standardisation repository's default; no log for this pair"


def setting(teacher: str, student: str) -> Setting:
    """Return KD on standardised logits; for a pair without a log, temperature 2 and weight 9."""
    pair = teacher, student
    temperature, weight = KD.get(pair, (2.0, 9.0))
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", weight, temperature=temperature, standardized=True)}
    return Setting(losses, source=_LOGS if pair in KD else _DEFAULT, published=pair in KD)


def with_dkd(teacher: str, student: str) -> Setting:
    """Return DKD on standardised logits; for a pair without a log, temperature 2, weight 9 and beta 8."""
    pair = teacher, student
    temperature, weight, beta = DKD.get(pair, (2.0, 9.0, 8.0))
    dkd = loss("dkd", weight, alpha=1.0, beta=beta, temperature=temperature, warmup=20, standardized=True)
    source = _LOGS if pair in DKD else "chosen, as for resnet32x4 and resnet8x4; no log for this pair"
    return Setting({"task": loss("ce"), "dkd": dkd}, source=source, published=pair in DKD)


def with_ctkd(teacher: str, student: str) -> Setting:
    """Return CTKD on standardised logits, as the authors' script does for every pair."""
    del teacher, student
    losses = {"task": loss("ce", 0.1), "ctkd": loss("ctkd", 9.0, reversal_epochs=10, standardized=True)}
    source = "the logit-standardisation repository, its CTKD script: -r 0.1 -a 9, not by pair"
    return Setting(losses, source=source, published=False)
