"""Small texts of our own in both languages, with headings, a table, numbers and words that return."""

import random

from golongrl.data.construct.generators.sample import Document, Language

_ENGLISH = [
    "The harbour office opened in 1871 and kept a register of every vessel that entered the bay.",
    "A lighthouse keeper wrote that the lantern burned through forty gallons of oil in one winter.",
    "Merchants complained about the tariff, because the register listed goods that never arrived.",
    "The council raised the tariff on copper by 12 percent and left the price of timber alone.",
    "Storms closed the harbour for nine days, and the lighthouse was the only light on the coast.",
    "A surveyor measured the channel with a weighted rope and marked it on a new chart.",
    "The chart showed a sandbank that the older charts had placed far to the north.",
    "Copper from the inland mines reached the harbour by mule until the railway was finished.",
    "The railway brought 300 workers to the town, and the council built lodgings for them.",
    "Fishermen paid no tariff, but they had to report their catch to the office each evening.",
    "The register for the spring is missing, and nobody knows who removed it from the shelf.",
    "An inspector asked the keeper about the missing pages and received a short answer.",
    "Timber was stacked along the quay, where a fire destroyed half of it in a single night.",
    "The surveyor returned two years later and found that the sandbank had moved again.",
    "A school for navigators was founded, with one teacher and a borrowed sextant.",
    "The teacher copied the chart by hand for each of the pupils who finished the course.",
    "Insurance for a vessel with a trained navigator cost a third less than before.",
    "The inspector closed his report with the remark that the harbour needed a second lighthouse.",
]
_CHINESE = [
    "港务局成立于1871年，负责登记每一艘进入海湾的船只。",
    "灯塔看守人写道，一个冬天里灯火烧掉了四十桶油。",
    "商人们抱怨关税太高，因为登记册里写着从未到达的货物。",
    "议会把铜的关税提高了12个百分点，木材的价格没有变。",
    "风暴使港口关闭了九天，灯塔成了海岸上唯一的光亮。",
    "测量员用一根系着铅块的绳子测量航道，并把它画在新海图上。",
    "海图显示了一片沙洲，旧海图把它画在很远的北方。",
    "铁路完工以前，内陆矿山的铜由骡子驮到港口。",
    "铁路给小镇带来了300名工人，议会为工人修建了宿舍。",
    "渔民不用缴纳关税，但每天傍晚都要向港务局报告渔获。",
    "春季的登记册不见了，没有人知道是谁从书架上拿走的。",
    "检查员向看守人询问缺失的书页，只得到一个简短的回答。",
    "木材堆放在码头上，一场大火在一夜之间烧掉了其中一半。",
    "两年后测量员再次来到这里，发现沙洲又移动了位置。",
    "一所航海学校成立了，有一名教师和一台借来的六分仪。",
    "教师为每个完成课程的学生亲手抄写了一份海图。",
    "有受过训练的领航员的船只，保险费比以前少三分之一。",
    "检查员在报告的结尾写道，港口需要第二座灯塔。",
]
_TABLE = """| {0} | {1} | {2} |
|---|---|---|
| Anna | copper | 12 |
| Bela | timber | 7 |
| Clara | copper | 31 |
| Dora | oil | 5 |
| Edda | timber | 19 |
| Fritz | copper | 2 |"""


def documents(lang: Language, seed: int, *, sections: int = 8, headings: bool = True) -> list[Document]:
    """A document of so many sections: a lead of a few sentences, then paragraphs; the same for the same seed."""
    rng = random.Random(f"{lang}:{seed}")
    pool = _CHINESE if lang == "Chinese" else _ENGLISH
    between = "" if lang == "Chinese" else " "
    shuffled = rng.sample(pool, len(pool))
    blocks: list[str] = []
    for number in range(sections):
        if headings:
            blocks.append(f"## {'第' if lang == 'Chinese' else 'Part '}{number + 1}{'节' if lang == 'Chinese' else ''}")
        own = [shuffled[(2 * number + offset) % len(pool)] for offset in range(2)]
        lead = between.join([*own, *rng.sample(pool, 1)])
        blocks += [lead, *(between.join(rng.sample(pool, 2)) for _ in range(3))]
    columns = ("姓名", "货物", "数量") if lang == "Chinese" else ("ship", "cargo", "tons")
    blocks.insert(rng.randrange(1, len(blocks)), _TABLE.format(*columns))
    return [Document("港口志" if lang == "Chinese" else "The harbour", "\n\n".join(blocks))]
