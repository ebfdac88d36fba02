"""Long jobs in steps: finished steps are skipped, interrupted ones are resumed, and no result is
ever removed.
"""

from sasv.reproduction.steps import Step, carry_out, check_unchanged, plan_lines

__all__ = ["Step", "carry_out", "check_unchanged", "plan_lines"]
