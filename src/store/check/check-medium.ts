/**
 * What the check needs of a medium. Two implementations: in-place-medium.ts, object-log-medium.ts.
 *
 * It only reads, except for `rewrite`, which is called for a damaged copy of metadata with the
 * bytes of the other one.
 */
import type { Fsinfo } from '../../layout/fsinfo.js';
import type { LogEntry } from '../../layout/log-entry.js';
import type { BlockTag, TagKind } from '../../layout/log-record.js';

export interface LoggedBatch {
  readonly cpNumber: number;
  readonly entries: readonly LogEntry[];
}

/** What a pointer says of the block that it names. */
export type NamedBlock = Pick<BlockTag, 'crc' | 'kind' | 'fbn' | 'level'>;

export interface CheckMedium {
  readonly name: string;
  readonly fsinfo: Fsinfo;
  /** Every VBN is below this. */
  readonly vbnEnd: number;
  /** Each metadata block stands here, counted from its VBN; [0] or [0, 1024]. */
  readonly copyOffsets: readonly number[];

  /** Why no block of this kind can stand at the VBN; undefined if one can. */
  placeFault(vbn: number, kind: TagKind): string | undefined;
  /** Fills the blocks from `vbn` on; resolves with the reason if that cannot be done. */
  read(vbn: number, into: readonly Uint8Array[]): Promise<string | undefined>;
  /** Writes one block again, durably. */
  rewrite(vbn: number, bytes: Uint8Array): Promise<void>;
  /** What a pointer says of the block that was just read there, against what the medium does. */
  tagFault(vbn: number, named: NamedBlock): string | undefined;
  /** The log since the consistency point. @throws {StoreError} corrupt if it is damaged */
  log(): AsyncIterable<LoggedBatch>;
}
