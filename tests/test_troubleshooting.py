"""The troubleshooting page is the code's."""

from anyrig.tests.troubleshooting import PAGE, page, parted, sentences

SOURCE = """
FIX = "try another"
def f(name, error):
    raise UserError(f"Bone '{name}' is odd ({str(error).strip()}): {FIX}.")
def g(ended):
    raise UserError(ended.error)
"""


def test_sentences_are_read_from_the_source() -> None:
    assert list(sentences(SOURCE)) == ["Bone '*name*' is odd (*error*): try another."]
    assert parted("Bone '*name*' is odd: mend it.") == ("Bone '*name*' is odd", "Mend it.")
    assert parted("It is odd.") == ("It is odd.", "")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/troubleshooting.py"
