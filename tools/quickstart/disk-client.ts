/**
 * The client that writes: qemu-io on one clone, with a ledger of what it was told is durable.
 *
 * 1. A number in the ledger says how many writes were flushed. It is written after the flush was
 *    answered, so each of these must be there after a kill. The batch behind it may have been
 *    written in any part: it is always written again.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { QemuIo } from './programs.js';
import type { PlannedWrite, WritePlan } from './write-plan.js';

/** Writes before each flush. */
const BATCH = 8;

interface Answered {
  readonly atMs: number;
  readonly writes: number;
}

export class DiskClient {
  readonly #uri: string;
  readonly #ledger: string;
  readonly #plan: WritePlan;
  readonly #answered: Answered[] = [];

  constructor(uri: string, ledger: string, plan: WritePlan) {
    this.#uri = uri;
    this.#ledger = ledger;
    this.#plan = plan;
  }

  /** Writes that were flushed, since the clone was made. */
  get flushedCount(): number {
    if (!existsSync(this.#ledger)) return 0;
    // A line without its end was being written: its batch is done again.
    const lines = readFileSync(this.#ledger, 'utf8').split('\n').slice(0, -1);
    return Number(lines.at(-1) ?? 0);
  }

  /** What was flushed, but for places that the batch behind it may have touched. */
  get surelyThere(): PlannedWrite[] {
    const count = this.flushedCount;
    const { placeCount } = this.#plan;
    return this.#plan.writes(Math.max(0, count + BATCH - placeCount), count);
  }

  /** Writes at least a batch, and once to each place; then until `isOver`. */
  async write(isOver: () => boolean, onBatch: () => void): Promise<void> {
    const qemuIo = new QemuIo(this.#uri);
    let count = this.flushedCount;
    do {
      const batch = this.#plan.writes(count, count + BATCH);
      await qemuIo.tell([...batch.map(toCommand), 'flush']);
      count += BATCH;
      appendFileSync(this.#ledger, `${count}\n`);
      this.#answered.push({ atMs: Date.now(), writes: BATCH });
      onBatch();
    } while (!isOver() || count < this.#plan.placeCount);
    await qemuIo.close();
  }

  /** Fails if what an earlier run was told is durable is not there. */
  async readBack(): Promise<void> {
    const qemuIo = new QemuIo(this.#uri);
    await qemuIo.tell(this.surelyThere.map(toReadCommand));
    await qemuIo.close();
  }

  /** Writes of this run that were answered between two moments. */
  answeredBetween(fromMs: number, toMs: number): number {
    const within = this.#answered.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
    return within.reduce((sum, { writes }) => sum + writes, 0);
  }
}

function toCommand({ offset, length, pattern }: PlannedWrite): string {
  return `write -q -P ${pattern} ${offset} ${length}`;
}

function toReadCommand({ offset, length, pattern }: PlannedWrite): string {
  return `read -q -P ${pattern} ${offset} ${length}`;
}
