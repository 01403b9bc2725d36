from tests.made_once import demo_project

__all__ = ["demo_project"]
