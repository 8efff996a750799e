"""Random words of a command line: read, or one line; never anything else."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rd_lightning.cli.aliases import ALIASES, canonical
from rd_lightning.cli.overrides import misspelt_override
from rd_lightning.cli.text import as_text, quoted, unquoted
from rd_lightning.errors import InputError

SIGNS = st.text(st.sampled_from("ab1_.-/\\\"'[]{}(), =:$~#%é蛋+@\n\t!&*"), max_size=10)
KEYS = st.sampled_from(
    ["out", "fasta", "level", "family", "trainer", "+x", "~seed", "", "--z", "-m"]
)
WORDS = st.one_of(SIGNS, st.builds(lambda k, v: f"{k}={v}", KEYS, SIGNS), KEYS)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ALIASES)), st.lists(WORDS, max_size=3))
def test_any_command_line_is_read_or_refused_in_one_line(command, arguments):
    try:
        written = canonical(command, arguments)
        problem = misspelt_override(command, written)
    except InputError as error:
        assert "\r" not in str(error)
        return
    assert canonical(command, written) == written
    assert problem is None or isinstance(problem, str)


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_quoting_has_an_inverse_for_any_text(text):
    assert unquoted(quoted(text)) == text


@settings(max_examples=60, deadline=None)
@given(SIGNS.filter(lambda s: s.strip() and "${" not in s and s[0] not in "~'\"" and s != "null"))
def test_hydra_reads_any_path_as_it_is_typed(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    written = as_text("embed", "fasta", text)
    assert OverridesParser.create().parse_override(f"fasta={written}").value() == text
