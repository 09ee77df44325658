"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import at, cc, crd, fitnets, ickd, kd, kdsvd, nst, ofd, pkt, plain, ra, reviewkd, rkd, sp, vid

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "at": at.setting,
    "cc": cc.setting,
    "crd": crd.setting,
    "fitnets": fitnets.setting,
    "ickd": ickd.setting,
    "kd": kd.setting,
    "kdsvd": kdsvd.setting,
    "nst": nst.setting,
    "ofd": ofd.setting,
    "pkt": pkt.setting,
    "ra": ra.setting,
    "reviewkd": reviewkd.setting,
    "rkd": rkd.setting,
    "sp": sp.setting,
    "vid": vid.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
