"""What methods cost: MACs by three independent counts, other operations, parameters, passes and memory.

A method adds its own formula by overriding `Method.closed_form_macs`, what it spends on choosing regions by
`Method.selection_macs`, and operators that fvcore does not know by `register_handler`.
"""

from fgvc.cost.closed_form import ClosedForm, closed_form
from fgvc.cost.dispatch import DispatchCount, count_dispatch, count_products
from fgvc.cost.record import AGREEMENT_PCT, cost_record, quick_macs, write_cost
from fgvc.cost.tracing import TraceCount, count_fvcore, register_handler

__all__ = [
    "AGREEMENT_PCT",
    "ClosedForm",
    "DispatchCount",
    "TraceCount",
    "closed_form",
    "cost_record",
    "count_dispatch",
    "count_fvcore",
    "count_products",
    "quick_macs",
    "register_handler",
    "write_cost",
]
