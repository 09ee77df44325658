"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import (
    at,
    catkd,
    cc,
    crd,
    fcfd,
    fitnets,
    ickd,
    kd,
    kdsvd,
    norm,
    norm_kd,
    nst,
    ofd,
    pkt,
    plain,
    ra,
    reviewkd,
    rkd,
    simkd,
    sp,
    vid,
)

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "at": at.setting,
    "catkd": catkd.setting,
    "cc": cc.setting,
    "crd": crd.setting,
    "fcfd": fcfd.setting,
    "fitnets": fitnets.setting,
    "ickd": ickd.setting,
    "kd": kd.setting,
    "kdsvd": kdsvd.setting,
    "norm": norm.setting,
    "norm_kd": norm_kd.setting,
    "nst": nst.setting,
    "ofd": ofd.setting,
    "pkt": pkt.setting,
    "ra": ra.setting,
    "reviewkd": reviewkd.setting,
    "rkd": rkd.setting,
    "simkd": simkd.setting,
    "sp": sp.setting,
    "vid": vid.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
