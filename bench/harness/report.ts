/**
 * Figures of one bench: printed as they come, each with its peer of the same run, the ratio and the
 * target. `report.misses` counts the targets that were not met.
 */

export interface Target {
  readonly kind: 'at most' | 'at least';
  readonly value: number;
}

export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** Of the value, or, if there is a peer, of the ratio. */
  readonly target?: Target;
  /** What the same machine did in the same run without Keiki, or the other side of a comparison. */
  readonly peer?: {
    readonly what: string;
    readonly value: number;
    /** The ratio, if it is not that of the two values: the median of those of single rounds. */
    readonly ratio?: number;
  };
  /** 'value / peer' (rates, default) or 'peer / value' (times: how many times faster). */
  readonly ratio?: 'value / peer' | 'peer / value';
}

export function atMost(value: number): Target {
  return { kind: 'at most', value };
}

export function atLeast(value: number): Target {
  return { kind: 'at least', value };
}

export class Report {
  readonly #print: (line: string) => void;
  misses = 0;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  figure(figure: Figure): void {
    const { what, value, unit, peer, target } = figure;
    let line = `  ${what}: ${toText(value)} ${unit}`;
    let judged = value;
    if (peer !== undefined) {
      const quotient = figure.ratio === 'peer / value' ? peer.value / value : value / peer.value;
      judged = peer.ratio ?? quotient;
      line += ` (${peer.what}: ${toText(peer.value)} ${unit}; ratio ${judged.toFixed(3)})`;
    }
    if (target !== undefined) {
      const isMet = target.kind === 'at most' ? judged <= target.value : judged >= target.value;
      if (!isMet) this.misses++;
      line += `  [${target.kind} ${toText(target.value)}: ${isMet ? 'met' : 'MISSED'}]`;
    }
    this.#print(line);
  }

  note(text: string): void {
    this.#print(`  ${text}`);
  }
}

function toText(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 1000) {
    return Math.round(value).toLocaleString('en');
  }
  return value.toPrecision(3);
}
