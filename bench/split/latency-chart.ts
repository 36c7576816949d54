/**
 * Latency over time, drawn as SVG: a panel for each run, one below the other, all with the same
 * axes; the split's time is shaded. The same series make the same bytes. Readable in light and
 * dark.
 */
export interface ChartPoint {
  /** Seconds since the split began; below 0: before it. */
  readonly atS: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface ChartPanel {
  readonly title: string;
  readonly splitS: number;
  readonly points: readonly ChartPoint[];
}

const WIDTH = 760;
const PANEL_HEIGHT = 170;
const LEFT = 64;
const RIGHT = 16;
const TOP = 34;
const GAP = 34;
const BOTTOM = 54;

const STYLE = [
  'text{font:12px system-ui,sans-serif;fill:#333}',
  '.t{font-weight:600}.g{stroke:#ddd}.s{fill:#f3ead2}.e{stroke:#a67c00;stroke-dasharray:4 3}',
  'polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}.m{stroke:#2a7ab0}.h{stroke:#c2452d}',
  '.b{fill:#fff}',
  '@media(prefers-color-scheme:dark){text{fill:#ccc}.g{stroke:#3a3a3a}.s{fill:#35301f}',
  '.e{stroke:#d9ac3d}.m{stroke:#6fb7e8}.h{stroke:#ff8a73}.b{fill:#161616}}',
].join('');

interface Scale {
  readonly fromS: number;
  readonly toS: number;
  readonly leastMs: number;
  readonly mostMs: number;
}

export function drawLatencyChart(title: string, panels: readonly ChartPanel[]): string {
  const scale = scaleOf(panels);
  const height = TOP + panels.length * (PANEL_HEIGHT + GAP) + BOTTOM - GAP;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    `<title>${escapeText(title)}</title><style>${STYLE}</style>`,
    `<rect class="b" width="${WIDTH}" height="${height}"/>`,
  ];
  panels.forEach((panel, index) => {
    parts.push(...drawPanel(panel, TOP + index * (PANEL_HEIGHT + GAP), scale));
  });
  const below = height - BOTTOM;
  for (const atS of ticksOf(scale)) {
    const x = toX(atS, scale);
    parts.push(`<text x="${x}" y="${below + 16}" text-anchor="middle">${atS}</text>`);
  }
  const middle = (LEFT + WIDTH - RIGHT) / 2;
  parts.push(
    `<text x="${middle}" y="${below + 34}" text-anchor="middle">` +
      'seconds since the split began</text>',
    `<line class="e" x1="${LEFT}" x2="${LEFT + 24}" y1="${below + 44}" y2="${below + 44}"/>`,
    `<text x="${LEFT + 30}" y="${below + 48}">begin and end of the split</text>`,
    ...drawKey('m', 'p50', 300, below + 44),
    ...drawKey('h', 'p99', 370, below + 44),
    '</svg>',
  );
  return `${parts.join('\n')}\n`;
}

function drawKey(kind: string, text: string, x: number, y: number): string[] {
  return [
    `<polyline class="${kind}" points="${x},${y} ${x + 24},${y}"/>`,
    `<text x="${x + 30}" y="${y + 4}">${text}</text>`,
  ];
}

function drawPanel(panel: ChartPanel, top: number, scale: Scale): string[] {
  const { title, splitS, points } = panel;
  const bottom = top + PANEL_HEIGHT;
  const from = toX(0, scale);
  const to = toX(Math.min(splitS, scale.toS), scale);
  const width = round(to - from);
  const parts = [
    `<rect class="s" x="${from}" y="${top}" width="${width}" height="${PANEL_HEIGHT}"/>`,
    `<text class="t" x="${LEFT}" y="${top - 8}">${escapeText(title)}</text>`,
  ];
  for (let ms = scale.leastMs; ms <= scale.mostMs; ms *= 10) {
    const y = toY(ms, top, scale);
    parts.push(
      `<line class="g" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`,
      `<text x="${LEFT - 6}" y="${y + 4}" text-anchor="end">` +
        `${ms < 1 ? ms.toFixed(2) : ms} ms</text>`,
    );
  }
  for (const x of [from, to]) {
    parts.push(`<line class="e" x1="${x}" x2="${x}" y1="${top}" y2="${bottom}"/>`);
  }
  for (const [kind, of] of [
    ['m', 'p50Ms'],
    ['h', 'p99Ms'],
  ] as const) {
    const line = points
      .filter((point) => point.atS <= scale.toS && point[of] > 0)
      .map((point) => `${toX(point.atS, scale)},${toY(point[of], top, scale)}`);
    parts.push(`<polyline class="${kind}" points="${line.join(' ')}"/>`);
  }
  return parts;
}

/** Powers of ten around all values. */
function scaleOf(panels: readonly ChartPanel[]): Scale {
  const points = panels.flatMap((panel) => panel.points);
  const values = points.flatMap(({ p50Ms, p99Ms }) => [p50Ms, p99Ms]).filter((ms) => ms > 0);
  return {
    fromS: Math.floor(Math.min(...points.map(({ atS }) => atS))),
    toS: Math.ceil(Math.max(...points.map(({ atS }) => atS))),
    leastMs: 10 ** Math.floor(Math.log10(Math.min(...values))),
    mostMs: 10 ** Math.ceil(Math.log10(Math.max(...values))),
  };
}

function ticksOf({ fromS, toS }: Scale): number[] {
  const step = [1, 2, 5, 10, 20, 50, 100].find((each) => (toS - fromS) / each <= 14) ?? 200;
  const ticks: number[] = [];
  for (let at = Math.ceil(fromS / step) * step; at <= toS; at += step) ticks.push(at);
  return ticks;
}

function toX(atS: number, { fromS, toS }: Scale): number {
  return round(LEFT + ((atS - fromS) / (toS - fromS)) * (WIDTH - RIGHT - LEFT));
}

function toY(ms: number, top: number, { leastMs, mostMs }: Scale): number {
  const part = Math.log(ms / leastMs) / Math.log(mostMs / leastMs);
  return round(top + PANEL_HEIGHT * (1 - part));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
