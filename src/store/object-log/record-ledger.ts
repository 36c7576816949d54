/** What is known of records in memory: until the usage file says it, or until they are deleted. */
import type { LogRecord } from '../../layout/log-record.js';
import type { OpenRecord } from './open-record.js';

export class RecordLedger {
  /** Records that exist and may be dead at the next consistency point. */
  readonly known = new Set<number>();
  /** By record: data or metadata. */
  readonly kinds = new Map<number, number>();
  /** By record: the blocks that it was put with. */
  readonly putBlocks = new Map<number, number>();

  opened(record: number, kind: number): void {
    this.known.add(record);
    this.kinds.set(record, kind);
  }

  closed({ number, blockCount }: OpenRecord): void {
    this.putBlocks.set(number, blockCount);
  }

  /** In the chain, behind the last consistency point. */
  found({ number, blocks }: LogRecord): void {
    this.known.add(number);
    this.putBlocks.set(number, blocks);
  }

  /** Of older records the usage file says all, unless a block of them still waits for its tree. */
  forgetBelow(replayFrom: number, isHeld: (record: number) => boolean): void {
    for (const record of this.putBlocks.keys()) {
      if (record >= replayFrom || isHeld(record)) continue;
      this.putBlocks.delete(record);
      this.kinds.delete(record);
    }
  }
}
