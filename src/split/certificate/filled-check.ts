/**
 * The fields of one level-1 block of a vdisk's own tree: no hole is left where there must be none,
 * and what a split filled is what the former backing store has there.
 *
 * 1. All of a range is looked at in one synchronous step, on both sides: a client's write is there
 *    wholly, and has taken the filled flag away, or is not there yet.
 * 2. A block that a read-through limit cuts was masked, and one from outside of the store has no
 *    checksum there: they are counted as excepted.
 * 3. Only the oldest tree was filled from the former backing store. A newer one that is split from
 *    the vdisk's own past, of which nobody has a name any more, has what that has.
 */
import { crc32, ZERO_BLOCK_CRC } from '../../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../../base/units.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  HOLE_VBN,
  POINTER_WORDS,
  vbnAt,
  ZERO_VBN,
} from '../../layout/pointer.js';
import type { Engine } from '../../store/engine.js';
import type { Tree } from '../../store/tree.js';
import type { Missing } from '../../vdisk/resolution.js';
import { type Findings, hex } from './findings.js';
import type { FormerBlock, FormerFields } from './former-fields.js';
import { type LegalSharing, LOAD } from './legal-sharing.js';

export interface MutableCounts {
  blocks: number;
  filledCopies: number;
  filledShares: number;
  filledZeros: number;
  compared: number;
  excepted: number;
}

/** A level-1 block of one of the vdisk's own trees, as it is in this step. */
export interface OwnRange {
  readonly tree: Tree;
  readonly fbn: number;
  readonly words: Uint32Array;
  readonly start: number;
  readonly filledAbove: boolean;
  /** It has no older one of the vdisk below it. */
  readonly isOldest: boolean;
  /** The smallest read-through limit of the tree and its own ones below it. */
  readonly limitBytes: number;
  /** No hole may be left where the former backing store has something. */
  readonly mustBeFull: boolean;
}

interface Field {
  readonly fbn: number;
  readonly index: number;
  readonly vbn: number;
  readonly crc: number;
}

export class FilledCheck {
  readonly counts: MutableCounts = {
    blocks: 0,
    filledCopies: 0,
    filledShares: 0,
    filledZeros: 0,
    compared: 0,
    excepted: 0,
  };
  readonly #engine: Engine;
  readonly #formerFields: FormerFields | undefined;
  readonly #sharing: LegalSharing;
  readonly #findings: Findings;
  readonly #nameOf: (tree: Tree) => string;

  constructor(
    engine: Engine,
    parts: {
      readonly former: FormerFields | undefined;
      readonly sharing: LegalSharing;
      readonly findings: Findings;
      readonly nameOf: (tree: Tree) => string;
    },
  ) {
    this.#engine = engine;
    this.#formerFields = parts.former;
    this.#sharing = parts.sharing;
    this.#findings = parts.findings;
    this.#nameOf = parts.nameOf;
  }

  /** What there is to compare with, in this step. */
  get #former(): FormerFields | undefined {
    return this.#formerFields?.isWhole === true ? this.#formerFields : undefined;
  }

  #formerOf(range: OwnRange): FormerFields | undefined {
    return range.isOldest ? this.#former : undefined;
  }

  /** What to load before the range can be looked at; undefined: `take` it in this same step. */
  missing(range: OwnRange): readonly Missing[] | undefined {
    const former = this.#formerOf(range);
    if (former !== undefined) {
      if (!range.mustBeFull && !hasFilled(range)) return undefined;
      return former.look(range.fbn);
    }
    const { words, start } = range;
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      const at = start + index * POINTER_WORDS;
      if (!isFilledBlock(range, at) || this.#sharing.counted(vbnAt(words, at)) !== LOAD) continue;
      return [{ vbn: this.#sharing.missVbn, crc: this.#sharing.missCrc }];
    }
    return undefined;
  }

  /** Counts and compares. Nothing was awaited since `missing`. */
  take(range: OwnRange): void {
    const { words, start, fbn } = range;
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      const at = start + index * POINTER_WORDS;
      const high = words[at + 1] as number;
      const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
      const vbn = isBuffer ? 0 : vbnAt(words, at);
      if (!isBuffer && vbn === HOLE_VBN) {
        if (range.mustBeFull) this.#checkHole(range.tree, fbn + index, index, range.limitBytes);
        continue;
      }
      if (isBuffer || vbn > ZERO_VBN) this.counts.blocks++;
      if (!range.filledAbove && (high & FLAG_FILLED) === 0) continue;
      const { pool } = this.#engine;
      const crc = isBuffer ? crc32(pool.bytes(words[at] as number)) : (words[at + 2] as number);
      this.#takeFilled(range, { fbn: fbn + index, index, vbn, crc });
    }
  }

  /** The tree has nothing at all in the range that the former backing store was looked at in. */
  takeHoles(tree: Tree, fbn: number, limitBytes: number): void {
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      this.#checkHole(tree, fbn + index, index, limitBytes);
    }
  }

  #checkHole(tree: Tree, fbn: number, index: number, limitBytes: number): void {
    if (fbn * BLOCK_BYTES >= limitBytes || this.#former?.at(index) === undefined) return;
    this.#findings.add(
      'hole',
      fbn,
      `${this.#nameOf(tree)}, FBN ${fbn}: still a hole, and ` +
        `${this.#nameOf(this.#former.tree)} has a block there`,
    );
  }

  #takeFilled(range: OwnRange, field: Field): void {
    const { counts } = this;
    const from = this.#formerOf(range);
    const former = from?.at(field.index);
    const isZero = field.vbn === ZERO_VBN;
    if (isZero) counts.filledZeros++;
    else if (from === undefined ? this.#isCounted(field.vbn) : isShare(field.vbn, former)) {
      counts.filledShares++;
    } else counts.filledCopies++;
    if (from === undefined) return;
    const isCut =
      range.limitBytes - field.fbn * BLOCK_BYTES < BLOCK_BYTES ||
      (former !== undefined && former.validBytes < BLOCK_BYTES);
    if (isCut || former?.isExternal === true) {
      counts.excepted++;
      return;
    }
    counts.compared++;
    const is = isZero ? ZERO_BLOCK_CRC : field.crc;
    const was = former?.crc ?? ZERO_BLOCK_CRC;
    if (is === was && (isZero || former !== undefined)) return;
    const there = former === undefined ? 'has nothing' : `has ${hex(was)}`;
    const what = isZero ? 'zeros were filled in' : `a block with checksum ${hex(is)} was filled in`;
    this.#findings.add(
      'checksum',
      field.fbn,
      `${this.#nameOf(range.tree)}, FBN ${field.fbn}: ${what}, but ` +
        `${this.#nameOf(from.tree)} ${there} there`,
    );
  }

  /** Nothing is there to compare with: a share is what has several names. */
  #isCounted(vbn: number): boolean {
    return vbn !== 0 && this.#sharing.counted(vbn) > 1;
  }
}

/** The former backing store's own block. */
function isShare(vbn: number, former: FormerBlock | undefined): boolean {
  return vbn !== 0 && former?.vbn === vbn;
}

function isFilledBlock({ words, filledAbove }: OwnRange, at: number): boolean {
  const high = words[at + 1] as number;
  if ((high & FLAG_IN_MEMORY) !== 0 || vbnAt(words, at) <= ZERO_VBN) return false;
  return filledAbove || (high & FLAG_FILLED) !== 0;
}

function hasFilled({ words, start, filledAbove }: OwnRange): boolean {
  if (filledAbove) return true;
  const end = start + FIELDS_PER_BLOCK * POINTER_WORDS;
  for (let at = start + 1; at < end; at += POINTER_WORDS) {
    if (((words[at] as number) & FLAG_FILLED) !== 0) return true;
  }
  return false;
}
