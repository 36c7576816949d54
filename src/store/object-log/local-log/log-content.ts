/**
 * Log batches for a local log: blocks that only memory has go in by content.
 *
 * 1. A pointer stays one where its record is acknowledged: whoever opens the store finds the block.
 * 2. Units stay whole and in order; groups get no larger than a ring takes.
 */
import { invariant } from '../../../base/invariant.js';
import { BLOCK_BYTES } from '../../../base/units.js';
import { type LogEntry, logEntryBytes } from '../../../layout/log-entry.js';
import { GROUP_BLOCKS_MAX } from '../../../layout/log-group.js';
import type { LogBatch } from '../../medium.js';

/** Blocks of a group's header; what LogWriter leaves to it, or less. */
const HEADER_BLOCKS_MAX = 20;
const PAYLOAD_BLOCKS_MAX = GROUP_BLOCKS_MAX - 24;
const ENTRY_BYTES_MAX = HEADER_BLOCKS_MAX * BLOCK_BYTES;

/** @param blockOf  a block whose record is not acknowledged */
export function withContent(
  batches: readonly LogBatch[],
  blockOf: (vbn: number) => Uint8Array | undefined,
): readonly LogBatch[] {
  const isOnlyHere = (entry: LogEntry): boolean =>
    entry.kind === 'pointers' && blockOf(entry.vbn) !== undefined;
  return batches.flatMap((batch) => {
    if (!batch.units.some((unit) => unit.some(isOnlyHere))) return [batch];
    const groups = new Groups(batch.cpNumber);
    for (const unit of batch.units) {
      // Pointers stand alone: what they name does not depend on each other.
      for (const entry of unit.filter(isOnlyHere)) {
        for (const [data, block] of contentOf(entry, blockOf)) groups.add([data], () => block);
      }
      const rest = unit.filter((entry) => !isOnlyHere(entry));
      groups.add(rest, (index) => batch.payload[index]);
    }
    return groups.finish();
  });
}

function* contentOf(
  entry: LogEntry,
  blockOf: (vbn: number) => Uint8Array | undefined,
): Generator<readonly [LogEntry, Uint8Array]> {
  invariant(entry.kind === 'pointers', 'only pointers name blocks elsewhere');
  for (const [index, crc] of entry.crcs.entries()) {
    const block = blockOf(entry.vbn + index);
    // They run on, so they are in one record: it is acknowledged as a whole.
    invariant(block !== undefined, 'the blocks of one record are in memory together');
    const { treeId, fbn } = entry;
    // A copy: its record may be acknowledged, and the memory used again, before the ring has it.
    yield [{ kind: 'data', treeId, fbn: fbn + index, crc, payloadIndex: 0 }, block.slice()];
  }
}

/** Puts units together to batches of one generation. */
class Groups {
  readonly #cpNumber: number;
  readonly #done: LogBatch[] = [];
  #units: LogEntry[][] = [];
  #payload: Uint8Array[] = [];
  #entryBytes = 0;

  constructor(cpNumber: number) {
    this.#cpNumber = cpNumber;
  }

  add(unit: readonly LogEntry[], payloadOf: (index: number) => Uint8Array | undefined): void {
    if (unit.length === 0) return;
    const bytes = unit.reduce((sum, entry) => sum + logEntryBytes(entry), 0);
    const blocks = unit.filter(({ kind }) => kind === 'data').length;
    const isTooMuch =
      this.#payload.length + blocks > PAYLOAD_BLOCKS_MAX ||
      this.#entryBytes + bytes > ENTRY_BYTES_MAX;
    if (isTooMuch) this.#cut();
    this.#entryBytes += bytes;
    this.#units.push(
      unit.map((entry) => {
        if (entry.kind !== 'data') return entry;
        const block = payloadOf(entry.payloadIndex);
        invariant(block !== undefined, 'a data entry has its payload');
        this.#payload.push(block);
        return { ...entry, payloadIndex: this.#payload.length - 1 };
      }),
    );
  }

  #cut(): void {
    if (this.#units.length === 0) return;
    const units = this.#units;
    this.#done.push({ cpNumber: this.#cpNumber, units, payload: this.#payload });
    this.#units = [];
    this.#payload = [];
    this.#entryBytes = 0;
  }

  finish(): LogBatch[] {
    this.#cut();
    return this.#done;
  }
}
