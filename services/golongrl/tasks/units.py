"""Scale words ("million", "万") and units of measure, with the factors between those of one dimension."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

Dimensions = frozenset[tuple[str, int]]
_SHARE = "share"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit may mean: (dimensions, factor to the base unit) each. A word that no table knows has `word` alone, a
    letter that may be a variable ("2t") both.
    """

    meanings: tuple[tuple[Dimensions, Fraction], ...] = ()
    word: str = ""
    title: bool = False  # a word that begins with a capital letter

    @property
    def known(self) -> bool:
        return bool(self.meanings)

    @property
    def counter(self) -> bool:
        """A word of one Chinese character: "12个", "3本"."""
        return len(self.word) == 1 and "\u4e00" <= self.word <= "\u9fff"

    @property
    def scaled(self) -> bool:
        """Whether a scale or a percent sign is left in it, as in "4% million": no number can be told then."""
        return any(part == "%" or split_scale(part, money=False)[0] != 1 for part in self.word.split())

    @property
    def share(self) -> bool:
        """A percent or the like."""
        return any((_SHARE, 1) in dimensions for dimensions, _ in self.meanings)

    @property
    def factor(self) -> Fraction:
        """To the base unit, by its first meaning."""
        return self.meanings[0][1]

    def compatible(self, other: "Unit") -> bool:
        return self.ratio(other) is not None

    def ratio(self, other: "Unit") -> set[Fraction] | None:
        """The factors from this unit to the other one, or None if they measure different things."""
        if not self.known and not other.known:
            return {Fraction(1)} if self.word == other.word else None
        found = {a / b for mine, a in self.meanings for theirs, b in other.meanings if mine == theirs}
        return found or None


# A line is a dimension, a factor to its base unit and spellings; "*" gives the first of them, a symbol, and the names
# (of four letters and more) SI's prefixes.
_TABLE = """
*length 1 m metre metres meter meters 米 公尺 м метр метров 미터 メートル
length 1/1000 毫米 мм
length 1/100 厘米 公分 см センチ
length 1/10 分米
length 1000 千米 公里 км キロ
length 1/1000000 微米 um micron microns
length 1/1000000000 纳米
length 0.0254 in inch inches 英寸
length 0.3048 ft foot feet 英尺
length 0.9144 yd yard yards 码
length 1609.344 mi mile miles 英里
mass 1 千克 公斤 кг kilo kilos
*mass 1/1000 g gram grams 克 г
mass 1/1000000 毫克 мг
mass 1/1000000000 微克 mcg
mass 1/2 斤
*mass 1000 tonne tonnes 吨 噸 т
*mass 1000 t
mass 0.45359237 lb lbs pound pounds 磅
mass 0.028349523125 oz ounce ounces 盎司
shortton 1 ton tons
*time 1 s sec secs second seconds Sekunde Sekunden secondes segundo segundos 秒 秒钟 сек с 초
time 1/1000 毫秒
time 60 min mins minute minutes Minute Minuten minuto minutos 分钟 分 мин 분
time 3600 h hr hrs hour hours Stunde Stunden heure heures hora horas 小时 小時 ч час часов 시간 時間 钟头
time 86400 d day days Tagen 天 日 день дней Tage Tag jours jour días día
time 604800 week weeks 周 星期 Wochen semaines semanas
month 120 decade decades
month 1200 centuries
month 1 month months 月 个月 個月 Monate mois meses
month 12 yr yrs year years Jahren año 年 岁 years_old year_old Jahre Jahr ans años лет год 년
*length^3 1/1000 L litre litres liter liters 升 公升 л
*length^3 1/1000 l
length^3 1/1000000 毫升 мл cc
length^2 10000 ha hectare hectares 公顷
length^2 4046.8564224 acre acres 英亩
gallon 1 gal gallon gallons 加仑
*energy 1 J joule joules 焦耳
*energy 3600 Wh
*energy 1.602176634e-19 eV
energy 3600000 千瓦时 度电
*energy 4.184 cal calorie calories
*power 1 W watt watts 瓦
power 1000 千瓦
power 1000000 兆瓦
*voltage 1 V volt volts 伏
*resistance 1 Ω ohms 欧 欧姆
*resistance 1 ohm
resistance 1000 kohms kiloohm kilohm kilohms
*charge 3600 Ah
*current 1 A amp amps ampere amperes 安
*frequency 1 Hz hertz 赫兹
*pressure 1 Pa pascal pascals 帕
pressure 101325 atm
*pressure 100000 bar bars
*force 1 N newton newtons 牛 牛顿
celsius 1 °C ℃ celsius 摄氏度 C
fahrenheit 1 °F ℉ fahrenheit 华氏度 F
kelvin 1 K kelvin kelvins
angle 1 ° deg degree degrees 度 градусов
radian 1 rad radian radians 弧度
*byte 1 B byte bytes 字节
byte 1000 KB
byte 1024 KiB kibibyte kibibytes
byte 1048576 MiB mebibyte mebibytes
byte 1073741824 GiB gibibyte gibibytes
byte 1099511627776 TiB tebibyte tebibytes
*bit 1 bit bits 比特
bit 1000 kb
bit 1000000 Mb megabit
bit 1000000000 Gb gigabit
decibel 1 dB decibel decibels
*amount 1 mol mole moles 摩尔
ratio 1 times 倍
share 1/100 % percent pct per_cent Prozent pour_cent por_ciento процентов процента
share 1/1000 ‰ permille per_mille per_thousand
share 1/1000000 ppm parts_per_million
share 1/1000000000 ppb parts_per_billion
share 1/10000 bp bps basis_points basis_point
points 1 percentage_points percentage_point pp ppt ppts 个百分点
usd 1 $ US$ USD usd dollar dollars 美元 美金 долларов ドル 달러 US_dollars U.S._dollars
usd 1/100 cent cents ¢
eur 1 € EUR euro euros 欧元 евро
gbp 1 £ GBP pound pounds 英镑 sterling
cny 1 ¥ CNY RMB yuan 元 人民币 块 renminbi 圆
jpy 1 ¥ JPY yen 円 日元
krw 1 ₩ KRW won 원 韩元
inr 1 ₹ INR rupee rupees Rs 卢比
rub 1 ₽ RUB ruble rubles руб рублей рубля 卢布
hkd 1 HK$ HKD 港元 港币
aud 1 A$ AUD
cad 1 C$ CAD
chf 1 CHF franc francs Franken 法郎
person 1 person persons people 人 个人 名 位 口 человек
"""


# Units of several words or dimensions, as the table and the signs of `_compound` say them.
_SPELLED = MappingProxyType(
    {"kph": "km/h", "kmh": "km/h", "kmph": "km/h", "mph": "mi/h", "mps": "m/s", "fps": "ft/s"}
    | {"kbps": "kb/s", "Mbps": "Mb/s", "mbps": "Mb/s", "Gbps": "Gb/s"}
    | {f"{degree} {name}": sign for degree in ("degree", "degrees", "deg") for name, sign in
       (("celsius", "°C"), ("centigrade", "°C"), ("c", "°C"), ("fahrenheit", "°F"), ("f", "°F"), ("kelvin", "K"))}
)  # fmt: skip


# What units of mechanics are made of, so that "kW h" is "kWh" and "N m" is "J".
_MADE_OF: MappingProxyType[str, Mapping[str, int]] = MappingProxyType(
    {
        "force": {"mass": 1, "length": 1, "time": -2},
        "energy": {"mass": 1, "length": 2, "time": -2},
        "power": {"mass": 1, "length": 2, "time": -3},
        "pressure": {"mass": 1, "length": -1, "time": -2},
        "frequency": {"time": -1},
    }
)


_SYMBOL = 3  # letters of the longest symbol, "cal"
_PREFIXES = (
    {"n": -9, "μ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12},
    {
        "nano": -9,
        "micro": -6,
        "milli": -3,
        "centi": -2,
        "deci": -1,
        "hecto": 2,
        "kilo": 3,
        "mega": 6,
        "giga": 9,
        "tera": 12,
    },
)


def _read_table() -> MappingProxyType[str, tuple[tuple[Dimensions, Fraction], ...]]:
    table: dict[str, tuple[tuple[Dimensions, Fraction], ...]] = {}
    for line in _TABLE.strip().splitlines():
        name, _, rows = line.removeprefix("*").partition(" ")
        dimension, _, power = name.partition("^")
        dimensions: Dimensions = frozenset(_MADE_OF.get(dimension, {dimension: int(power or 1)}).items())
        factor, *words = rows.split()
        for word in words:
            forms = {word.replace("_", " "): 0}
            if line.startswith("*") and (word == words[0] or (len(word) > _SYMBOL and word.isascii())):
                forms |= {prefix + word: ten for prefix, ten in _PREFIXES[len(word) > _SYMBOL].items()}
            for spelled, ten in forms.items():
                size = Fraction(factor) * Fraction(f"1e{ten}")
                table[spelled] = (*table.get(spelled, ()), (dimensions, size))
    return MappingProxyType(table)


_UNITS = _read_table()
_SCALE_WORDS = """
100 hundred hundreds 百
1000 thousand thousands tsd тыс тысяч тысячи 千 천 천명 mil
10000 万 萬 만
100000 lakh lakhs 十万
1000000 million millions mio mn mln млн миллион миллионов миллиона Millionen Million millones millón milhões
1000000 milhão milioni milione 百万 백만
10000000 crore crores 千万
100000000 亿 億 억
1000000000 billion billions bn bln млрд миллиард миллиардов миллиарда Milliarde Milliarden Mrd milliard
1000000000 milliards 十亿 십억
1000000000000 trillion trillions tn trn трлн триллион триллионов 万亿 兆 조
1000000000000000 quadrillion quadrillions
12 dozen dozens
"""
_SCALES = MappingProxyType(
    {word: Fraction(line.split()[0]) for line in _SCALE_WORDS.split("\n") if line for word in line.split()[1:]}
)
# One letter right behind the digits; with a space between, "K" is a kelvin.
_LETTERS = MappingProxyType({"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "bn": 10**9})
_MONEY_LETTERS = MappingProxyType({"m": 10**6, "b": 10**9, "t": 10**12, "T": 10**12, "mm": 10**6, "MM": 10**6})
_HAN = re.compile(r"[万萬亿億百千十兆]{1,2}|[만억조천백십]{1,2}")
_LATIN = re.compile(r"[^\W\d_]+")


def split_scale(text: str, *, money: bool) -> tuple[Fraction, str]:
    """The factor of the scale words that `text` begins with, and what follows them."""
    letter = re.match(r"(mm|MM|bn|[kKMBmbtT])(?![^\W\d_])", text)
    if letter is not None:
        size = _LETTERS.get(letter[1]) or (_MONEY_LETTERS.get(letter[1]) if money else None)
        if size is not None:
            return Fraction(size), text[letter.end() :].strip()
    factor, rest = Fraction(1), text.strip(" -") if not text.startswith("-") else text.strip()
    while (found := _scale(rest)) is not None:
        factor, rest = factor * found[0], found[1]
    return factor, re.sub(r"^(?:of|de)\s+", "", rest) if factor != 1 else rest


def _scale(text: str) -> tuple[Fraction, str] | None:
    for pattern in (_HAN, _LATIN):
        found = pattern.match(text)
        while found is not None:
            word = found[0]
            factor = _SCALES.get(word) or _SCALES.get(word.lower())
            if factor is not None:
                return factor, text[found.end() :].lstrip(" .")
            found = pattern.match(text, 0, found.end() - 1) if pattern is _HAN and len(word) > 1 else None
    return None


_PART = re.compile(r"(?P<name>[^\d\s/^*·{}()\\]+(?: points?| dollars)?)\s*(?:\^?\s*\{?\s*(?P<power>-?\d)\s*\}?)?")
_AREA = (
    (re.compile(r"^(?:square|sq\.?|平方)\s*"), 2),
    (re.compile(r"^(?:cubic|cu\.?|立方)\s*"), 3),
)


_QUOTIENT = re.compile(r"\\frac\s*\{([^\d{}]{1,30})\}\s*\{([^\d{}]{1,30})\}")


_VARIABLES = ("t", "C", "F")


def read_unit(text: str) -> Unit | None:
    """The unit that the whole text is: known, or a word of its own; None if it holds digits or signs of a formula."""
    text = _QUOTIENT.sub(r"\1/\2", text)
    text = re.sub(r"\\cdot|\\times", " ", text).replace("\\,", " ").strip(" .")
    if not text:
        return None
    text = _SPELLED.get(text) or _SPELLED.get(text.lower(), text)
    if (simple := _lookup(text)) is not None:
        return simple
    compound = _compound(text)
    if compound is not None:
        return compound
    if re.search(r"[\d=+*^<>\\/{}()\[\]|,;:?!&@#~–—-]", text) or len(text.split()) > 4:
        return None
    word = text.casefold()
    return Unit(word=word[:-1] if word.endswith("s") and len(word) > 3 else word, title=text[0].isupper())


def _lookup(name: str) -> Unit | None:
    meanings = _UNITS.get(name) or _UNITS.get(name.lower() if len(name) > 2 else name)
    return Unit(meanings, word=name if name in _VARIABLES else "") if meanings else None


def _compound(text: str) -> Unit | None:
    """km/h, m/s^2, cm^2, m s^{-2}, square metres, people per km^2."""
    dimensions: dict[str, int] = {}
    factor = Fraction(1)
    for side, piece in zip((1, -1, -1), re.split(r"\s*/\s*|\s+per\s+|每", text), strict=False):
        whole = piece.strip(" ()")
        parts = [found] if (found := _power(whole)) is not None else [_power(part) for part in whole.split()]
        for parsed in parts or [None]:
            if parsed is None:
                return None
            meaning, power = parsed
            base, size = meaning[0]
            factor *= size ** (side * power)
            for name, exponent in base:
                dimensions[name] = dimensions.get(name, 0) + side * power * exponent
    return Unit(((frozenset((name, power) for name, power in dimensions.items() if power), factor),))


def _power(piece: str) -> tuple[tuple[tuple[Dimensions, Fraction], ...], int] | None:
    for pattern, power in _AREA:
        rest, changed = pattern.subn("", piece, count=1)
        if changed:
            unit = _lookup(rest)
            return (unit.meanings, power) if unit else None
    found = _PART.fullmatch(piece)
    unit = _lookup(found["name"].strip()) if found else None
    return (unit.meanings, int(found["power"] or 1)) if found and unit else None
