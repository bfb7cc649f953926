"""How a report looks: its colours in light and dark, its pictures, and the library that draws them. No data in here.

Nothing is fetched when a page is opened. Pictures that belong together are figures of their own in a grid, which has
fewer columns on a narrow screen. Every string that comes from a run is escaped: in HTML by `html.escape`, in a picture
by `text`, and no figure's JSON can end its script element.
"""

import base64
import gzip
import html
from collections.abc import Sequence
from functools import cache

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Okabe and Ito's palette, a little lighter where it has to stand on both black and white: nine task types have to stay
# apart for every reader.
PALETTE = ("#1f83c4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9a6bb8", "#B8A200", "#888888")
# For series beyond the palette.
DASHES = ("solid", "dash", "dot")
# Steps of the moving average drawn over the raw rewards of a task type.
SMOOTHING = 5
# Of a name in a picture: a worker's id may be any text.
_LONGEST = 60

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2733;--soft:#5a6875;--line:#dfe3e8;--mark:#0b6e4f}
@media (prefers-color-scheme:dark){
:root{--page:#12161b;--card:#1b2128;--ink:#e4e9ee;--soft:#9dabb8;--line:#323c47;--mark:#5fd0a5}}
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:var(--page);color:var(--ink)}
main{max-width:1100px;margin:0 auto;padding:28px 20px 60px}
h1{margin:0;font-size:clamp(20px,5vw,28px);overflow-wrap:anywhere}
h2{margin:36px 0 8px;font-size:20px} p.sub{margin:2px 0 20px;color:var(--soft);overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.card{background:var(--card);border-radius:10px;padding:14px 16px;box-shadow:0 1px 3px #0001;overflow-wrap:anywhere}
.card b{display:block;font-size:20px} .card span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:12px}
.plot{background:var(--card);border-radius:10px;padding:8px;box-shadow:0 1px 3px #0001;min-width:0;overflow:hidden}
pre{background:var(--card);border-radius:10px;padding:16px;overflow:auto;font-size:13px}
.note{color:var(--soft);font-size:14px;margin:4px 0 10px}
.group{background:var(--card);border-radius:10px;padding:10px 16px;margin:10px 0;overflow-wrap:anywhere}
.group summary{cursor:pointer} .group summary b{color:var(--mark)}
.group pre{background:var(--page);padding:10px;white-space:pre-wrap;overflow-wrap:anywhere;max-height:320px}
.wide{overflow-x:auto} table{border-collapse:collapse;font-size:14px;background:var(--card);border-radius:10px}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
@media (max-width:600px){main{padding:18px 10px 40px} pre{padding:10px}}
@media print{.plot,.card,.group{break-inside:avoid}}
"""

# Plotly is 4.8 MB as text and 1.5 MB compressed: browsers decompress it themselves. Figures are drawn once it is there,
# in the colours of the page, which follow the reader's light or dark.
LOADER = """
(async () => {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colours = layout => {
    const found = {"font.color": colour("--ink"), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": colour("--card"), "hoverlabel.font.color": colour("--ink")};
    for (const axis of Object.keys(layout).filter(name => /^[xy]axis/.test(name)).concat(["xaxis", "yaxis"]))
      for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) found[axis + "." + part] = colour("--line");
    return found;
  };
  const drawn = [];
  for (const element of document.querySelectorAll("script.figure")) {
    const figure = JSON.parse(element.textContent), place = element.parentElement;
    await Plotly.newPlot(place, figure.data, figure.layout, {displayModeBar: false, responsive: true});
    await Plotly.relayout(place, colours(figure.layout));
    drawn.push([place, figure.layout]);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [place, layout] of drawn) Plotly.relayout(place, colours(layout));
  });
  document.documentElement.dataset.drawn = drawn.length;
})();
"""


def text(name: str) -> str:
    """A string of a run for a picture, which would read `<b>` as bold."""
    return html.escape(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", quote=False)


def styled(figure: go.Figure, height: int) -> go.Figure:
    """One picture, as wide as there is room."""
    return (
        figure.update_layout(
            template="none",
            height=height,
            margin={"l": 50, "r": 15, "t": 20, "b": 55},
            font={"family": "system-ui, sans-serif", "size": 13},
            hovermode="x unified",
            # At the bottom, where it may take as many lines as a narrow screen makes of it; the axis makes room.
            legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        )
        .update_yaxes(automargin=True, title_font_size=13)
        .update_xaxes(automargin=True, title_font_size=13)
    )


def small(figure: go.Figure, title: str) -> go.Figure:
    """One of several pictures side by side."""
    return titled(styled(figure, 230), title).update_layout(
        margin={"l": 45, "r": 10, "b": 30}, showlegend=False, hovermode="closest"
    )


def titled(figure: go.Figure, title: str) -> go.Figure:
    """With a title inside the picture."""
    title_style = {"text": title, "x": 0.5, "xanchor": "center", "font": {"size": 14}}
    return figure.update_layout(title=title_style, margin={"t": 36})


def section(name: str, note: str, figures: Sequence[go.Figure]) -> str:
    """A heading, a sentence, and pictures."""
    # `<` is all that could end the script element.
    drawn = [figure.to_json().replace("<", "\\u003c") for figure in figures]
    plots = "".join(
        f'<div class="plot"><script type="application/json" class="figure">{d}</script></div>' for d in drawn
    )
    return f'<h2>{name}</h2><p class="note">{note}</p><div class="plots">{plots}</div>'


def head(title: str) -> str:
    """The beginning of a page, up to its body; `title` is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
    )


def cards(found: Sequence[tuple[str, str]]) -> str:
    """Figures worth a glance: (value, what it is)."""
    made = (
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>' for value, what in found
    )
    return f'<div class="cards">{"".join(made)}</div>'


@cache
def plotly_script() -> str:
    """The library that draws the pictures, and what starts it."""
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return f'<script type="text/plain" id="plotly">{packed}</script><script>{LOADER}</script>'
