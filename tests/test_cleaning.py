"""Cleaning: every step is pure, idempotent and linear, and every character finds its way back to the original."""

import pickle
import subprocess
import sys
import unicodedata

import ftfy
import pytest
import snowballstemmer
import stopwordsiso
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tamiz.cleaning import DEFAULT_STEPS, Aligned, Cleaner, check_steps
from tamiz.cleaning.alignment import Trace, differences
from tamiz.cleaning.steps import MASKS, STEPS
from tamiz.cleaning.words import LANGUAGES, STEMMERS
from tamiz.errors import ConfigError

WORD_STEPS = [{"stop_words": "english"}, {"stop_words": "spanish"}, {"stem": "english"}, {"stem": "porter"}]
ALL_STEPS = [*STEPS, *WORD_STEPS]

PIECES = [
    "<p>", "</p>", "<b>", "</b>", "<br/>", "<a href='x > y'>", '<a title="', "<!--", "-->", "<!", "<script>",
    "</script>", "<style a>", "</style >", "<![CDATA[", "<?xml ?>", "<", ">", "&", ";", "&amp;", "amp;",
    "&lt;", "&gt;", "&#38;", "#38;", "&nbsp;", "&#x3c;", "&#0;", "&#1;", "&#xD800;", "&Atilde;&sup3;", "＜b＞",
    "＆amp;", "&#xFF06;", "&copy", "http://", "https://x.com/a?b=1&c=2", "www.", "x.org", "ftp://", "a@b.c",
    "@", "@d.e", "+", "-", ".", ",", ":", "/", "_", "_url_", "_email_", "_number_", "12", "1,000.5", "٣", "XX",
    "XXXX", "XX/XX/2015", "{$5.00}", "{", "}", "$", "'", "’", "don't", "l’été", "the", "running", "IS",
    "Corriendo", "s", "o", "İ", "Σ", "ΑΣ", "ẞ", "K", "ﬁ", "²", "①", "Ã³", "Ã", "Â ", "â€œ", "â€", "Ð¿", "\x80",
    "\x9d", "�", "œ", "é", "e\u0301", "\u0301", "\u0327", "\uff9e", "か", "क्षि", "中文", "שלום", "مرحبا",
    "\u200f", "\u200b", "\u200d", "\ufeff", "\xad", "한", "ᄒ", "ᅡ", "ᆫ", "👩\u200d👩\u200d👧", "❤\ufe0f",
    "1️⃣", "🇪🇸", "\ud83d", "\ude00", "\udcff", "\x00", "\x07", "\x1c", "\x85", "\u2028", "\u3000", "\xa0", " ",
    "  ", "\n", "\t", "\r\n", "a", "b", "Hello",
]  # fmt: skip
ANYTHING = st.characters(exclude_categories=())
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), ANYTHING), max_size=14).map("".join),
    st.text(ANYTHING, max_size=30),
)


def clean(text, *steps):
    return Cleaner(list(steps))(text)


def name_of(spec):
    return spec if isinstance(spec, str) else "-".join(*spec.items())


# --- what each step does ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("I <3 you, </3 and <- that", "I <3 you, </3 and <- that"),
        ("<john@x.com> <http://x.com>", "<john@x.com> <http://x.com>"),
        ("one<br>two<BR/>three", "one two three"),
        ("<p>one</p><div class='a'>two</div>", " one  two "),
        ("<b>H</b>ello <em>you</em>", "Hello you"),
        ("<o:p>Word</o:p>", " Word "),
        ('<a title="x > y" href=q>link</a>', "link"),
        ("<a title=it's>link</a>", "link"),
        ("x<!-- no > <b>comment</b> -->y", "x y"),
        ("x<!-- never closed <b>y</b>", "x<!-- never closed y"),
        ("x<script>if (a<b) alert('<p>')</script >y", "x y"),
        ("x<STYLE type='a'>p > a {}</style>y", "x y"),
        ("<!DOCTYPE html>x", " x"),
        ("AT&amp;T &#8364; &eacute; R&D &unknown; ?a=1&copy=2", "AT&T € é R&D &unknown; ?a=1&copy=2"),
        ("A &amp B&nbsp C", "A & B\xa0 C"),
        ("&amp;lt;b&amp;gt;deep", "deep"),
        ("&#99999999999999999999; &#65 &#x41g", "&#99999999999999999999; A Ag"),
    ],
)
def test_html(text, expected):
    assert clean(text, "html") == expected


def test_html_escaped_beyond_reason_ends_without_markup():
    text = "&" + "amp;" * 50 + "lt;b&gt;"
    once = clean(text, "html")
    assert "&" not in once
    assert "<" not in once
    assert clean(once, "html") == once


@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        ("mojibake", "la soluciÃ³n del niÃ±o", "la solución del niño"),
        ("mojibake", "â€œquotedâ€\x9d", "“quoted”"),
        ("mojibake", "la solución, «así» — ¡ya!", "la solución, «así» — ¡ya!"),
        ("nfkc", "ﬁne ２０２４ e\u0301", "fine 2024 é"),
        ("control", "a\x00b\u200bc\ufeffd\ud800e\u00adf\r\ng\th", "abcdef \ng\th"),
        ("control", "plain\x07 text\x1c.", "plain text ."),
        ("urls", "see https://x.com/a_(b)?c=d#e. Or www.x.org!", "see _url_. Or _url_!"),
        ("urls", "(HTTP://X.COM) 请看http://x.com/ www.", "(_url_) 请看 _url_ www."),
        ("urls", "w.w. www. wwww http:// ://", "w.w. www. wwww http:// ://"),
        ("emails", "mail jane.doe+x@mail.example.co.uk, or a@b", "mail _email_, or a@b"),
        ("emails", "<josé@correo.es>", "<_email_>"),
        ("numbers", "$1,234.50 on 12/05/2020 at 10:30, 555-1234", "$_number_ on _number_ at _number_, _number_"),
        ("numbers", "covid19 2nd B2B 5% -3 1.2a", "covid19 2nd B2B _number_% -_number_ 1.2a"),
        ("redactions", "On XX/XX/XXXX XXXX XXXX paid {$1,200.00}.", "On _redacted_ paid _amount_."),
        ("redactions", "XX/XX/2015, XXXX-XXXX-1234; XXL MAXX X", "_redacted_, _redacted_; XXL MAXX X"),
        ("special", "Don't stop! It’s #1 (really) 'quoted' a_b", "Don't stop  It's  1  really   quoted  a b"),
        ("special", "_url_ & _number_%", "_url_   _number_ "),
        ("special", "¡Qué niño! हिन्दी — ❤️ e\u0301", " Qué niño  हिन्दी      e\u0301"),
        ("case", "ÀÉ İ ΟΔΟΣ", "àé i̇ οδος"),
        ("whitespace", " \ta \u3000 b\n\nc\xa0", "a b c"),
    ],
)
def test_steps(step, text, expected):
    assert clean(text, step) == expected


@pytest.mark.parametrize(
    ("spec", "text", "expected"),
    [
        ({"stop_words": "english"}, "The cat, and the dog: isn't it?", "cat, dog: ?"),
        ({"stop_words": "es"}, "El perro y LA gata", "perro gata"),
        ({"stem": "porter"}, "running flies, happily don't", "run fli, happili don't"),
        ({"stem": "spanish"}, "corriendo canciones", "corr cancion"),
        ({"stem": "english"}, "_url_ 12s covid19s " + "s" * 100, "_url_ 12s covid19s " + "s" * 100),
        ({"stem": "hi"}, "लड़कियाँ", "लड़क"),
    ],
)
def test_word_steps(spec, text, expected):
    assert clean(text, spec) == expected


@pytest.mark.parametrize("step", ALL_STEPS, ids=name_of)
def test_masks_survive_every_step(step):
    masks = [f"_{name}_" for name in MASKS]
    assert clean(" ".join(masks), step).split() == masks


def test_defaults_on_a_messy_page():
    text = "<p>Ol\u00c3\u00a9! See&nbsp;<a href='x'>http://x.com</a>\u200b or a@b.com &amp;lt;3</p>\x00"
    assert Cleaner()(text) == "Olé! See _url_ or _email_ <3"


# --- properties ---


@pytest.mark.parametrize("step", ALL_STEPS, ids=name_of)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_every_step_is_idempotent_and_aligned(step, text):
    check(Cleaner([step]), text)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example("&" + "#xFF06;" * 100)
@example("Ã\u200b³")
@example("a@b.c.@d.e")
def test_the_default_steps_are_idempotent_and_aligned(text):
    check(Cleaner(DEFAULT_STEPS), text)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, names=st.permutations(list(STEPS)), count=st.integers(1, len(STEPS)))
def test_any_steps_on_characters_are_idempotent_and_aligned(text, names, count):
    check(Cleaner(names[:count]), text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_a_model_chain_is_aligned(text):
    chain = Cleaner(DEFAULT_STEPS).then(Cleaner(["special", "case", {"stop_words": "en"}, {"stem": "porter"}]))
    check_alignment(chain, text)


def check(cleaner, text):
    once = cleaner(text)
    assert cleaner(once) == once
    check_alignment(cleaner, text)


def check_alignment(cleaner, text):
    aligned = cleaner.align(text)
    assert aligned.text == cleaner(text)
    assert len(aligned.starts) == len(aligned.ends) == len(aligned.text)
    assert all(0 <= s <= e <= len(text) for s, e in zip(aligned.starts, aligned.ends, strict=True))
    assert list(aligned.starts) == sorted(aligned.starts)
    assert list(aligned.ends) == sorted(aligned.ends)
    if aligned.text == text:
        assert aligned.starts == tuple(range(len(text)))


@pytest.mark.parametrize("step", ALL_STEPS, ids=name_of)
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_steps_align_themselves_without_the_safety_net(step, text):
    cleaner = Cleaner([step])
    trace = Trace(text)
    for stage in cleaner._stages:
        stage.trace(trace)
    assert trace.text == cleaner(text)


@settings(max_examples=200, deadline=None)
@given(before=TEXTS, after=TEXTS)
def test_differences_lead_from_any_text_to_any_other(before, after):
    trace = Trace(before)
    trace.edit(differences(before, after))
    assert trace.text == after


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_mojibake_is_repaired_as_ftfy_does(text):
    assert clean(text, "mojibake") == ftfy.fix_encoding(text)


def test_every_character_alone_and_after_a_letter():
    cleaners = [Cleaner([name]) for name in ("nfkc", "control", "case")]
    for code in [*range(0x3400), *range(0xA000, 0xAC10), *range(0xD7A0, 0x20000, 3)]:
        for cleaner in cleaners:
            once = cleaner("a" + chr(code))
            assert cleaner(once) == once


def test_nfkc_is_that_of_unicodedata():
    for code in [*range(0x3400), *range(0xF900, 0x12000), *range(0x1D000, 0x1F200)]:
        text = f"o{chr(code)}\u0301\u0327"
        assert Cleaner(["nfkc"]).align(text).text == unicodedata.normalize("NFKC", text)


# --- alignment ---


@pytest.mark.parametrize(
    ("text", "word", "source"),
    [
        ("<p>Fish &amp; chips</p>", "&", "&amp;"),
        ("<p>Fish &amp; chips</p>", "chips", "chips"),
        ("mi niÃ±o come", "niño", "niÃ±o"),
        ("mi niÃ±o come", "ñ", "Ã±"),
        ("mi niÃ±o come", "come", "come"),
        ("a ﬁne  e\u0301tude", "fine", "ﬁne"),
        ("a ﬁne  e\u0301tude", "étude", "e\u0301tude"),
        ("see http://x.com/a now", "_url_", "http://x.com/a"),
        ("ze\u200bro", "zero", "ze\u200bro"),
    ],
)
def test_words_find_their_source(text, word, source):
    aligned = Cleaner().align(text)
    start = aligned.text.index(word)
    assert text[slice(*aligned.span(start, start + len(word)))] == source


def test_stems_find_their_word():
    text = "She was <i>Running</i> home"
    aligned = Cleaner(["html", "case", {"stop_words": "en"}, {"stem": "porter"}]).align(text)
    start = aligned.text.index("run")
    assert text[slice(*aligned.span(start, start + 3))] == "Run"
    aligned = Cleaner([{"stem": "porter"}]).align("happily")
    assert aligned.text == "happili"
    assert aligned.span(0, 7) == (0, 7)


def test_an_empty_span_is_empty():
    assert Aligned("", (), ()).span(0, 0) == (0, 0)
    aligned = Cleaner(["whitespace"]).align("  a b")
    assert aligned.span(0, 0) == (2, 2)
    assert aligned.span(3, 3) == (5, 5)


# --- length ---


@pytest.mark.parametrize(
    "seed",
    ["<", "a@", "XX/", "<!--", "<script>", "<a '", "&amp;", "&#38;", "a@a.", "1,1a", "http://", "Ã", "\u0301\u0327"],
)
def test_long_texts_take_linear_time(seed):
    text = seed * (1_000_000 // len(seed))
    for cleaner in (Cleaner(), Cleaner(["numbers", "redactions"])):
        once = cleaner(text)
        assert cleaner(once) == once


def test_five_megabytes():
    text = "<p>It cost $5 &amp; more, see http://x.com</p>\n" * 106_383
    assert len(text) > 5_000_000
    assert Cleaner()(text).startswith("It cost $5 & more, see _url_ It cost")


def test_a_long_text_aligns():
    text = "<p>ni\u00c3\u00b1o &amp; <b>Fish</b></p>\n" * 3_000
    aligned = Cleaner([*DEFAULT_STEPS, "case", {"stem": "spanish"}]).align(text)
    assert text[slice(*aligned.span(len(aligned.text) - 4, len(aligned.text)))] == "Fish"


def test_words_longer_than_any_word_are_left_alone():
    assert clean("s" * 300_000, {"stem": "porter"}) == "s" * 300_000


# --- names ---


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("htlm", ["'htlm'", "html", "whitespace", "did you mean 'html'"]),
        ({"stemm": "english"}, ["'stemm'", "did you mean 'stem'"]),
        ({"stem": "englsh"}, ["stem", "'englsh'", "did you mean 'english'"]),
        ({"stop_words": "xx"}, ["stop_words", "'xx'", "spanish"]),
        ("stem", ["'stem'", "stem: english"]),
        ({"html": "yes"}, ["'html'", "no argument"]),
        ({"stem": "en", "html": "x"}, ["one `name: argument`"]),
        (3, ["3"]),
    ],
)
def test_wrong_steps_are_explained(spec, parts):
    for call in (check_steps, Cleaner):
        with pytest.raises(ConfigError) as caught:
            call(["html", spec])
        assert all(part in str(caught.value) for part in parts)


def test_steps_are_given_back_in_normal_form():
    cleaner = Cleaner(["html", {"stop_words": "EN"}, {"stem": " Porter"}])
    assert cleaner.steps == ["html", {"stop_words": "english"}, {"stem": "porter"}]
    assert Cleaner(cleaner.steps).steps == cleaner.steps
    assert repr(cleaner) == "Cleaner(['html', {'stop_words': 'english'}, {'stem': 'porter'}])"


def test_languages_are_those_of_the_libraries():
    assert set(LANGUAGES.values()) == set(stopwordsiso.langs())
    assert set(STEMMERS) <= set(snowballstemmer.algorithms())


def test_then_keeps_the_parts_apart():
    first, second = Cleaner(["html"]), Cleaner(["nfkc", "html"])
    assert first.then(second).steps == ["html", "nfkc", "html"]
    assert first.then(Cleaner(["nfkc"]))("＜b＞") == Cleaner(["nfkc"])(first("＜b＞")) == "<b>"
    assert Cleaner(["html", "nfkc"])("＜b＞x") == "x"


def test_no_steps_change_nothing():
    assert Cleaner([])(" <b> ") == " <b> "
    assert Cleaner([]).align("ab") == Aligned("ab", (0, 1), (1, 2))


def test_many_cleans_each_text_on_its_own():
    texts = ("<b>a", "b</b>")
    assert Cleaner().many(texts) == ["a", "b"]
    assert Cleaner().many([]) == []


def test_a_cleaner_travels_between_processes():
    cleaner = Cleaner([*DEFAULT_STEPS, {"stop_words": "en"}, {"stem": "porter"}]).then(Cleaner(["case"]))
    assert pickle.loads(pickle.dumps(cleaner))("<p>The Foxes</p>") == cleaner("<p>The Foxes</p>") == "fox"


def test_nothing_but_the_standard_library_is_imported_for_ascii():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from tamiz.cleaning import Cleaner\n"
        "Cleaner()('<p>plain &amp; simple</p>')\n"
        "print({'ftfy', 'snowballstemmer', 'stopwordsiso'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
