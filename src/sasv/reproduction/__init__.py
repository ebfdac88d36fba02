"""Long work in steps: what is done is skipped, what was interrupted goes on, what depends on a change is redone."""

from sasv.reproduction.steps import Step, carry_out, plan_lines

__all__ = ["Step", "carry_out", "plan_lines"]
