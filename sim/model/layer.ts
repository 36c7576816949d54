/**
 * Owns what the naive model knows of one tree: for each sector the versions that it may have.
 *
 * 1. A version that was answered for certain replaces those that had been answered before it was
 *    issued. Versions that overlap in time may end in either order.
 * 2. A reader may see every version that was not replaced before the read began.
 * 3. After a cut every version may be there that is not *settled*: replaced by one that a FLUSH,
 *    FUA or consistency point made durable. Settled ones are forgotten.
 * 4. A hole reads the backing layer below the limit, and zeros behind it.
 */
import { ZERO_STAMP } from '../content.js';

/** In place of a stamp: nothing here, look at the backing layer. */
const HOLE = -1;
/** Sectors of a chunk: 64 KiB. */
export const CHUNK_SECTORS = 128;

/** What one write left in one sector, or in many. Moments count up; an event has one of its own. */
export interface Version {
  readonly stamp: number;
  readonly issuedAt: number;
  /** Infinity while it is under way. */
  answeredAt: number;
  /** False: it may have gone elsewhere, or nowhere. */
  certain: boolean;
}

/** Not a moment: what may be there after a cut is asked for. */
export const AFTER_CUT = -1;

/** The versions of one sector, oldest first. */
interface History {
  versions: Version[];
  /** What had been answered before this moment cannot come back, not even after a cut. */
  floor: number;
}

export class Layer {
  /** Where holes lead. Only as long as it can still matter; see `adopt`. */
  backing: Layer | undefined;
  limitSector = Number.POSITIVE_INFINITY;
  /** The layer that this one is a later state of, for good: what a diff walks down. */
  below: Layer | undefined;
  /** A split that nobody watches any more may have cut it off from what is below. */
  mayBeCut = false;
  readonly #stable = new Map<number, Int32Array>();
  readonly #unsettled = new Map<number, History>();
  /** Blocks that clients wrote or cut in this layer, as far as anybody knows. */
  readonly #changed = new Set<number>();
  readonly #changedRanges: { readonly from: number; readonly to: number }[] = [];

  get unsettledCount(): number {
    return this.#unsettled.size;
  }

  /** The chunks that hold anything, here and in the layers that this one reads through. */
  chunks(): Set<number> {
    const found = new Set<number>();
    for (let layer: Layer | undefined = this; layer !== undefined; layer = layer.backing) {
      for (const chunk of layer.#stable.keys()) found.add(chunk);
      for (const sector of layer.#unsettled.keys()) found.add(Math.floor(sector / CHUNK_SECTORS));
    }
    return found;
  }

  /** Chunks in which more than one content may be there after a cut, here or further down. */
  unsettledChunks(): Set<number> {
    const found = new Set<number>();
    for (const layer of this.lineage()) {
      for (const sector of layer.#unsettled.keys()) found.add(Math.floor(sector / CHUNK_SECTORS));
    }
    return found;
  }

  /** Layers from this one down to where no hole leads further. */
  *lineage(): Generator<Layer> {
    for (let layer: Layer | undefined = this; layer !== undefined; layer = layer.backing) {
      yield layer;
    }
  }

  // -- writing

  /** @param baseAt  until when what was there before may have replaced this version, too */
  put(sector: number, version: Version, baseAt = 0): void {
    const history = this.#unsettled.get(sector);
    if (history !== undefined) {
      history.versions.push(version);
      const [base] = history.versions;
      if (base !== undefined) base.answeredAt = Math.max(base.answeredAt, baseAt);
      return;
    }
    const base = { stamp: this.#stamp(sector), issuedAt: 0, answeredAt: baseAt, certain: true };
    this.#unsettled.set(sector, { versions: [base, version], floor: 0 });
  }

  /** True if a version of the sector was answered after this moment, whenever it was issued. */
  isAnsweredAfter(sector: number, moment: number): boolean {
    const history = this.#unsettled.get(sector);
    return (
      history?.versions.some(
        ({ answeredAt }) => answeredAt > moment && answeredAt !== Number.POSITIVE_INFINITY,
      ) === true
    );
  }

  /** The vdisk ends here from now on: what lies behind is gone for good. */
  cutTail(sector: number): void {
    this.limitSector = Math.min(this.limitSector, sector);
    for (const at of [...this.#unsettled.keys()]) if (at >= sector) this.#unsettled.delete(at);
    for (const [chunk, stamps] of this.#stable) {
      const start = chunk * CHUNK_SECTORS;
      if (start + CHUNK_SECTORS <= sector) continue;
      stamps.fill(HOLE, Math.max(0, sector - start));
    }
    this.noteChanged(Math.floor(sector / 8), Number.POSITIVE_INFINITY);
  }

  /**
   * What was answered before this moment is durable.
   *
   * @param oldestRead  versions that a read which began then may see are kept for it
   */
  settle(before: number, oldestRead: number): void {
    for (const [sector, history] of this.#unsettled) {
      for (const { certain, issuedAt, answeredAt } of history.versions) {
        if (certain && answeredAt < before) history.floor = Math.max(history.floor, issuedAt);
      }
      this.#forget(sector, history, oldestRead);
    }
  }

  /** A version of these sectors that was issued at this moment is durable. */
  settleWrite(first: number, count: number, issuedAt: number, oldestRead: number): void {
    const settleOne = (sector: number): void => {
      const history = this.#unsettled.get(sector);
      if (history === undefined) return;
      history.floor = Math.max(history.floor, issuedAt);
      this.#forget(sector, history, oldestRead);
    };
    if (count <= this.#unsettled.size) {
      for (let sector = first; sector < first + count; sector++) settleOne(sector);
    } else {
      for (const sector of [...this.#unsettled.keys()]) {
        if (sector >= first && sector < first + count) settleOne(sector);
      }
    }
  }

  /** Forgets what nobody can see, and what cannot come back. */
  #forget(sector: number, history: History, oldestRead: number): void {
    const { versions, floor } = history;
    const kept = versions.filter(
      (version) => version.answeredAt >= floor || !isReplaced(version, versions, oldestRead),
    );
    const [only] = kept;
    if (kept.length === 1 && only !== undefined && only.issuedAt <= floor) {
      this.#unsettled.delete(sector);
      this.#setStable(sector, only.stamp);
    } else history.versions = kept;
  }

  // -- reading

  /**
   * The stamp, of those that the sector may have, that passes the test; undefined if none does. A
   * reader who began at `before` passes that moment, and what it saw stays so from then on.
   */
  match(
    sector: number,
    before: number,
    test: (stamp: number) => boolean,
    isWhole = true,
  ): number | undefined {
    for (let layer: Layer = this; ; ) {
      const history = layer.#unsettled.get(sector);
      if (history === undefined) {
        const stamp = layer.#stamp(sector);
        if (stamp !== HOLE) return test(stamp) ? stamp : undefined;
      } else {
        const found = matchVersions(history, before, test);
        if (found === undefined) return undefined;
        if (isWhole && before !== AFTER_CUT) see(history.versions, found, before);
        if (found.stamp !== HOLE) return found.stamp;
      }
      if (layer.backing === undefined || sector >= layer.limitSector) {
        return test(ZERO_STAMP) ? ZERO_STAMP : undefined;
      }
      layer = layer.backing;
    }
  }

  /** All stamps that the sector may have. */
  candidates(sector: number, before: number): Set<number> {
    const found = new Set<number>();
    const note = (stamp: number): boolean => {
      found.add(stamp);
      return false;
    };
    this.match(sector, before, note, false);
    return found;
  }

  // -- after a recovery

  /**
   * The layer holds these stamps and nothing else; what it reads through does not matter any more.
   */
  adopt(chunks: ReadonlyMap<number, Int32Array>): void {
    this.#unsettled.clear();
    this.#stable.clear();
    for (const [chunk, stamps] of chunks) this.#stable.set(chunk, stamps);
    this.backing = undefined;
  }

  // -- what a diff may report

  noteChanged(firstBlock: number, endBlock: number): void {
    if (endBlock - firstBlock > 1024) {
      this.#changedRanges.push({ from: firstBlock, to: endBlock });
      return;
    }
    for (let block = firstBlock; block < endBlock; block++) this.#changed.add(block);
  }

  mayHaveChanged(block: number): boolean {
    if (this.#changed.has(block)) return true;
    return this.#changedRanges.some(({ from, to }) => from <= block && block < to);
  }

  /** Takes over what was changed in a layer that nobody can name any more. */
  absorbChanges(other: Layer): void {
    for (const block of other.#changed) this.#changed.add(block);
    this.#changedRanges.push(...other.#changedRanges);
  }

  #stamp(sector: number): number {
    const stamps = this.#stable.get(Math.floor(sector / CHUNK_SECTORS));
    return stamps?.[sector % CHUNK_SECTORS] ?? HOLE;
  }

  #setStable(sector: number, stamp: number): void {
    const chunk = Math.floor(sector / CHUNK_SECTORS);
    let stamps = this.#stable.get(chunk);
    if (stamps === undefined) {
      stamps = new Int32Array(CHUNK_SECTORS).fill(HOLE);
      this.#stable.set(chunk, stamps);
    }
    stamps[sector % CHUNK_SECTORS] = stamp;
  }
}

function isReplaced(version: Version, versions: readonly Version[], before: number): boolean {
  for (const other of versions) {
    if (!other.certain || other.answeredAt >= before) continue;
    if (version.answeredAt < other.issuedAt) return true;
  }
  return false;
}

function maySee(version: Version, { versions, floor }: History, before: number): boolean {
  if (before === AFTER_CUT) return version.answeredAt >= floor;
  return !isReplaced(version, versions, before);
}

/** The newest version that may be seen and passes the test; a hole if no other does. */
function matchVersions(
  history: History,
  before: number,
  test: (stamp: number) => boolean,
): Version | undefined {
  const { versions } = history;
  let hole: Version | undefined;
  for (let index = versions.length - 1; index >= 0; index--) {
    const version = versions[index];
    if (version === undefined || !maySee(version, history, before)) continue;
    if (version.stamp === HOLE) hole ??= version;
    else if (test(version.stamp)) return version;
  }
  return hole;
}

/** If nothing was under way, what a reader saw is what everybody sees from then on. */
function see(versions: Version[], seen: Version, at: number): void {
  let others = 0;
  for (const version of versions) {
    if (version.answeredAt >= at) return;
    if (version !== seen && !isReplaced(version, versions, at)) others++;
  }
  if (others === 0) return;
  versions.push({ stamp: seen.stamp, issuedAt: at, answeredAt: at, certain: true });
}
