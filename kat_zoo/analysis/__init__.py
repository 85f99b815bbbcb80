"""Pictures of trained models and the numbers behind them; `kat-zoo analyze RUN` makes all of them for a run folder."""

from .attention import AttentionLayer as AttentionLayer
from .attention import capture_attention as capture_attention
from .attention import plot_attention_maps as plot_attention_maps
from .costs import measure_costs as measure_costs
from .costs import plot_costs as plot_costs
from .curves import plot_curves as plot_curves
from .histograms import plot_histograms as plot_histograms
from .landscape import Plane as Plane
from .landscape import loss_surface as loss_surface
from .landscape import plot_landscape as plot_landscape
from .landscape import principal_plane as principal_plane
from .output import NotApplicable as NotApplicable
from .quality import attention_quality as attention_quality
from .quality import plot_quality as plot_quality
from .scaling import PowerLaw as PowerLaw
from .scaling import fit_power_law as fit_power_law
from .scaling import plot_power_law as plot_power_law
from .spectra import plot_spectra as plot_spectra
from .spectra import singular_values as singular_values

__all__ = [
    "AttentionLayer",
    "NotApplicable",
    "Plane",
    "PowerLaw",
    "attention_quality",
    "capture_attention",
    "fit_power_law",
    "loss_surface",
    "measure_costs",
    "plot_attention_maps",
    "plot_costs",
    "plot_curves",
    "plot_histograms",
    "plot_landscape",
    "plot_power_law",
    "plot_quality",
    "plot_spectra",
    "principal_plane",
    "singular_values",
]


def __dir__() -> list[str]:
    return sorted(__all__)
