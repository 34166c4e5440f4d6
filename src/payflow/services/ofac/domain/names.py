"""Names as screening compares them: Latin letters in one case, cut into tokens, each token heavy or light."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Final

import msgspec


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The longest name on the lists has 196 characters; what is twice as long was not written as a name, and fuzzy work
# grows with length.
NAME_LENGTH_MAX: Final = 400

# Forms of companies: two firms do not differ by "Ltd" and "GmbH", and lists and customers write one form in many ways.
_LEGAL_FORMS: Final = _words("""
    ab ag aktiengesellschaft ao aps as asa bhd bv bvba cjsc co company corp corporation cv dmcc doo ead eood fz fzc
    fzco fze gmbh inc incorporated joint jsc kft kg lda liability limited limitada llc llp lp ltd ltda mbh nv oao ojsc
    ooo oy oyj pao pjsc plc pte pty pvt sa sae sal saoc sarl sas sdn sia spa spzoo srl sro sti stock uab zao
""")
# Words between names. They are spelled, joined and left out at will.
_PARTICLES: Final = _words("""
    al el ul ur bin ben ibn bint and or of the for y e i de del della di da do dos das du des la las le les lo los
    van von der den dem zu zur
""")
_TITLES: Final = _words("mr mrs ms miss dr prof sir haji hajj hajji sheikh shaykh sheik sayyid sayed syed jr")
# A lone initial tells as little as these.
_LIGHT: Final = frozenset((*_LEGAL_FORMS, *_PARTICLES, *_TITLES, *string.ascii_lowercase, *string.digits))

# Names that begin others and are written joined or apart: "Abd al-Rahman", "Abdulrahman"; "Abu Bakr", "Abubakr".
_JOINING: Final = frozenset(_words("al el abd abdal abdel abdul abu bin ben ibn de la van von mac mc"))
# The longer beginning first: Abdulrahman is compared as Rahman too, Alzawahiri as Zawahiri.
_BEGINNINGS: Final = ("abdul", "abdel", "abdal", "abdur", "abd", "abu", "bin", "ibn", "al", "el")
# What is left after the beginning must still say something: "ali" is not al + i.
_REST_LENGTH_MIN: Final = 5

_SEPARATORS: Final = "".join(c for c in map(chr, range(128)) if c not in string.ascii_letters + string.digits + "'`")
# Apostrophes inside a name are sounds, not gaps: Sa'id is Said, O'Neil is ONeil.
_ASCII: Final = str.maketrans(_SEPARATORS, " " * len(_SEPARATORS), "'`")
# Letters that decompose into one of these and a mark (й, ё, ї, accented Greek) need no row.
_CYRILLIC: Final = dict(
    zip(
        "абвгдежзиклмнопрстуфхцчшщъыьэюяієґђјљњћџ",
        _words("a b v g d e zh z i k l m n o p r s t u f kh ts ch sh shch _ y _ e yu ya i e g dj j lj nj c dz"),
        strict=True,
    )
)
_GREEK: Final = dict(
    zip("αβγδεζηθικλμνξοπρστυφχψως", _words("a v g d e z i th i k l m n x o p r s t y f ch ps o s"), strict=True)
)
_GREEK_PAIRS: Final = {"ου": "u", "μπ": "b", "ντ": "d", "γκ": "g"}
_LATIN: Final = {
    "ø": "o",
    "đ": "d",
    "ð": "d",
    "ł": "l",
    "æ": "ae",
    "œ": "oe",
    "þ": "th",
    "ı": "i",
    "ə": "e",
    "ħ": "h",
    "ŋ": "ng",
}
# Modifier letters and curly apostrophes that transliterations put where a sound was.
_SILENT: Final = dict.fromkeys("’‘ʼʻʾʿ´", "")
_LETTERS: Final = str.maketrans({**{k: v.strip("_") for k, v in _CYRILLIC.items()}, **_GREEK, **_LATIN, **_SILENT})

_REPEATED: Final = re.compile(r"(.)\1+")
# Vowels and the half-sounds h, w, y carry the differences between transliterations; c, k and q, or s and z, are written
# for each other.
_SOUNDS: Final = str.maketrans("cqz", "kks", "aeiouyhw")
_FIRST_SOUNDS: Final = str.maketrans("cqz", "kks")
_VOWELS: Final = frozenset("aeiouy")


class NormalName(msgspec.Struct, frozen=True):
    """A name cut into comparable tokens.

    `is_readable` is false where letters remain that we cannot compare, or nothing is left.
    """

    key: str
    tokens: tuple[str, ...]
    is_readable: bool


def normalise(text: str) -> NormalName:
    """Lower-case Latin tokens of a name, in the order given; "S.A." and "S A" both become "sa".

    Accents go, Cyrillic and Greek are transliterated, apostrophes close up, all other punctuation separates.
    """
    if len(text) > NAME_LENGTH_MAX:
        return NormalName("", (), False)
    is_readable = True
    if not text.isascii():
        text, is_readable = _to_ascii(text)
    tokens = text.casefold().translate(_ASCII).split()
    if min(map(len, tokens), default=2) == 1:
        tokens = _joined_initials(tokens)
    return NormalName(" ".join(tokens), tuple(tokens), is_readable and bool(tokens))


def heavy_tokens(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens that tell names apart, each once; all where a name has only light ones ("The Company")."""
    heavy = [token for token in tokens if token not in _LIGHT]
    return tuple(dict.fromkeys(heavy or tokens))


def skeleton(token: str) -> str:
    """The sounds that survive transliteration: Muhammad and Mohamed are "mmd", Usama and Osama "asma".

    Vowels are all one at the ends and none between: Osama is not Sami, and Omar is not Omairi ("of Omar").
    """
    first = "a" if token[0] in _VOWELS else token[0].translate(_FIRST_SOUNDS)
    last = "a" if token.rstrip("h")[-1:] in _VOWELS else ""
    return first + _REPEATED.sub(r"\1", token)[1:].translate(_SOUNDS) + last


def other_spellings(tokens: tuple[str, ...], position: int) -> list[str]:
    """The token without a joined beginning, and joined with the name before it: ways in which the list may write it."""
    token = tokens[position]
    spellings = []
    for beginning in _BEGINNINGS:
        if token.startswith(beginning) and len(token) >= len(beginning) + _REST_LENGTH_MIN:
            spellings.append(token[len(beginning) :])
            break
    if position and tokens[position - 1] in _JOINING:
        spellings.append(tokens[position - 1] + token)
    return spellings


def _to_ascii(text: str) -> tuple[str, bool]:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    # Marks are accents; format characters (zero-width joiners) are invisible and would cut a name in two unseen.
    bare = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))
    for pair, sound in _GREEK_PAIRS.items():
        bare = bare.replace(pair, sound)
    bare = bare.translate(_LETTERS)
    is_readable = not any(not c.isascii() and c.isalnum() for c in bare)
    return "".join(c if c.isascii() else " " for c in bare), is_readable


def _joined_initials(tokens: list[str]) -> list[str]:
    """Runs of single letters become one token: l l c is llc, and s a is sa; a single initial stays."""
    joined: list[str] = []
    run = ""
    for token in [*tokens, "  "]:
        if len(token) == 1:
            run += token
            continue
        if run:
            joined.append(run)
            run = ""
        joined.append(token)
    return joined[:-1]
