"""Synthetic walkers: labelled gait data with views and conditions, laid out as CASIA-B is."""

from attengait.synth.dataset import SynthConfig, SynthSummary, write_walkers

__all__ = ["SynthConfig", "SynthSummary", "write_walkers"]
