"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import centred_mse, ctkd, dist, dkd, kd, lskd, nkd, plain, ra, rkkd, ttm, wttm

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "kd": kd.setting,
    "dkd": dkd.setting,
    "nkd": nkd.setting,
    "ctkd": ctkd.setting,
    "ttm": ttm.setting,
    "wttm": wttm.setting,
    "dist": dist.setting,
    "lskd": lskd.setting,
    "lskd_dkd": lskd.with_dkd,
    "lskd_ctkd": lskd.with_ctkd,
    "ra": ra.setting,
    "rkkd": rkkd.setting,
    "centred_mse": centred_mse.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
