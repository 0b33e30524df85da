"""For whoever writes a teacher: does it keep the contract of :class:`depthsieve.teachers.Teacher`?

In a test, for a teacher by any name that ``--teacher`` takes, or for the function that makes it::

    from depthsieve.testing import check_teacher

    def test_my_teacher_keeps_the_contract() -> None:
        assert check_teacher("my-depth") == []
"""

from depthsieve.testing.contract import RULES, BrokenRule, check_teacher

__all__ = ["RULES", "BrokenRule", "check_teacher"]
