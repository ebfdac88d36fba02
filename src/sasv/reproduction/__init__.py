"""Long work in steps: what is done is skipped, what was interrupted goes on, and nothing that was
made is removed.
"""

from sasv.reproduction.steps import Step, carry_out, check_unchanged, plan_lines

__all__ = ["Step", "carry_out", "check_unchanged", "plan_lines"]
