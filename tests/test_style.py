"""What lint has no stable rule for."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def private_imports(source: str) -> list[str]:
    """The private names of the package that a file imports."""
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    ours = (node for node in imports if (node.module or "").partition(".")[0] == "s3ray")
    return [
        name for node in ours for name in (*node.module.split("."), *(n.name for n in node.names)) if name[0] == "_"
    ]


def test_no_test_imports_a_private_name() -> None:
    assert private_imports("from s3ray.store import Store, _b\nfrom s3ray._c import d\nimport os") == ["_b", "_c"]
    found = {str(path.relative_to(TESTS)): private_imports(path.read_text()) for path in TESTS.rglob("*.py")}
    # The shards' order is still asked of the stages' insides.
    assert {file for file, names in found.items() if names} <= {"stages/test_distributed.py"}
