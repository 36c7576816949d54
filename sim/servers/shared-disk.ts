/**
 * The model of a disk that several servers serve one after the other: what was promised by
 * whichever of them, and what each may show.
 *
 * 1. Writes are ordered by epoch, then by the order in which the server took them.
 * 2. A write is promised when a FLUSH that was asked for after its answer is answered. What a
 *    server found at its open is promised, too: it was recovered, and made durable.
 * 3. A server shows its own last write; else one of an older epoch that is not before what was
 *    promised there, and always the same one.
 */
import { Violation } from '../model/violation.js';

interface DiskWrite {
  readonly stamp: number;
  readonly block: number;
  readonly epoch: number;
}

/** What one server was seen to hold. */
export class ServerView {
  readonly epoch: number;
  readonly name: string;
  /** When its open was done: from then on it may answer. */
  readonly openedMs: number;
  /** By block: what it wrote last, or what it was found to hold. */
  readonly shown = new Map<number, DiskWrite>();
  readonly wrote = new Set<number>();

  constructor(name: string, epoch: number, openedMs: number) {
    this.name = name;
    this.epoch = epoch;
    this.openedMs = openedMs;
  }
}

export interface SharedDiskCounts {
  writes: number;
  promised: number;
  reads: number;
}

export class SharedDisk {
  readonly blocks: number;
  readonly views: ServerView[] = [];
  readonly counts: SharedDiskCounts = { writes: 0, promised: 0, reads: 0 };
  readonly #nothing: readonly DiskWrite[];
  readonly #writes = new Map<number, DiskWrite>();
  /** By block, newest last. */
  readonly #promised: DiskWrite[][] = [];
  #stamp = 0;

  constructor(blocks: number) {
    this.blocks = blocks;
    this.#nothing = Array.from({ length: blocks }, (_, block) => ({ stamp: 0, block, epoch: 0 }));
    for (const write of this.#nothing) this.#promised.push([write]);
  }

  /** @throws {Violation} two servers have the same epoch */
  open(name: string, epoch: number, nowMs: number): ServerView {
    if (this.views.some((view) => view.epoch === epoch)) {
      throw new Violation(`${name} serves epoch ${epoch}, and so does another server`);
    }
    const view = new ServerView(name, epoch, nowMs);
    this.views.push(view);
    return view;
  }

  /** A write is on its way to the server. */
  write(view: ServerView, block: number): number {
    const write = { stamp: ++this.#stamp, block, epoch: view.epoch };
    this.#writes.set(write.stamp, write);
    this.counts.writes++;
    return write.stamp;
  }

  /** The server has answered the write. */
  wrote(view: ServerView, stamp: number): void {
    const write = this.#writeOf(stamp);
    view.shown.set(write.block, write);
    view.wrote.add(write.block);
  }

  /** A FLUSH that was asked for behind these writes has been answered. */
  promise(view: ServerView, stamps: readonly number[]): void {
    for (const stamp of stamps) {
      const write = this.#writeOf(stamp);
      this.counts.promised++;
      this.#keep(write);
      for (const other of this.views) {
        const shown = other.shown.get(write.block);
        if (other.epoch <= view.epoch || shown === undefined || !isBefore(shown, write)) continue;
        throw new Violation(
          `${view.name} (epoch ${view.epoch}) acknowledged write ${stamp} of block ` +
            `${write.block}, and ${other.name} (epoch ${other.epoch}) holds ${shown.stamp} there`,
        );
      }
    }
  }

  /** The server has answered a read. @throws {Violation} what it answered cannot be */
  read(view: ServerView, block: number, stamp: number, nowMs: number): void {
    this.counts.reads++;
    this.#refuseLate(view, nowMs);
    const says = `${view.name} (epoch ${view.epoch}): block ${block} reads as write ${stamp}`;
    const found = stamp === 0 ? this.#nothing[block] : this.#writes.get(stamp);
    if (found === undefined || found.block !== block) throw new Violation(`${says} of elsewhere`);
    const shown = view.shown.get(block);
    if (shown !== undefined) {
      if (shown.stamp === stamp) return;
      throw new Violation(`${says}, it held ${shown.stamp} before`);
    }
    const least = this.#promised[block]?.findLast((write) => write.epoch < view.epoch);
    if (found.epoch >= view.epoch) throw new Violation(`${says}, of epoch ${found.epoch}`);
    if (least !== undefined && isBefore(found, least)) {
      throw new Violation(`${says}, but ${least.stamp} of epoch ${least.epoch} was acknowledged`);
    }
    view.shown.set(block, found);
    this.#keep(found);
  }

  /** @throws {Violation} a successor may have answered before */
  #refuseLate(view: ServerView, nowMs: number): void {
    for (const other of this.views) {
      if (other.epoch <= view.epoch || other.openedMs >= nowMs) continue;
      const lateMs = (nowMs - other.openedMs).toFixed(1);
      throw new Violation(
        `stale: ${view.name} (epoch ${view.epoch}) answers a read ${lateMs} ms after ` +
          `${other.name} (epoch ${other.epoch}) began to serve`,
      );
    }
  }

  #keep(write: DiskWrite): void {
    const promised = this.#promised[write.block];
    if (promised === undefined) return;
    const at = promised.findLastIndex((other) => !isBefore(write, other));
    if (promised[at]?.stamp !== write.stamp) promised.splice(at + 1, 0, write);
  }

  #writeOf(stamp: number): DiskWrite {
    const write = this.#writes.get(stamp);
    if (write === undefined) throw new Violation(`write ${stamp} was never made`);
    return write;
  }
}

function isBefore(a: DiskWrite, b: DiskWrite): boolean {
  return a.epoch < b.epoch || (a.epoch === b.epoch && a.stamp < b.stamp);
}
