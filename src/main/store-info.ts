/** What a store says of its vdisks, and of itself. */
import type { CertificateRecord } from '../layout/certificate-record.js';
import type { SplitState } from '../split/split-job.js';
import type { BlockCacheStats } from '../store/object-log/cache/block-cache.js';
import type { CleanerStats } from '../store/object-log/cleaner/cleaner.js';
import type { LocalLogStats } from '../store/object-log/local-log/local-log.js';
import type { SweepStats } from '../store/object-log/orphan-sweep.js';
import type { ExternalInfo } from './external-catalog.js';

export interface VdiskInfo {
  readonly name: string;
  readonly kind: 'vdisk' | 'snapshot' | 'external';
  readonly sizeBytes: number;
  /** What holes are read from, `golden@v1`; "" if that one was deleted: see delete. */
  readonly backing: string | undefined;
  /** Bytes of data that its own tree names. */
  readonly mappedBytes: number;
  /** Of these, the ones that another tree names too, as of the last consistency point. */
  readonly sharedBytes: number;
  readonly ownBytes: number;
  readonly split: SplitState | undefined;
  /** What reads through it, directly or behind what has lost its name. */
  readonly holders: readonly string[];
  /** Of an external backing store: what is behind it. */
  readonly external: ExternalInfo | undefined;
  /** Of a snapshot: what other stores clone it as; undefined: it is not published. */
  readonly published: string | undefined;
  /** What the last verification came to: at the end of a split, or when somebody asked. */
  readonly certificate: CertificateRecord | undefined;
  /** Where a FLUSH of it is when it is answered. */
  readonly durability: 'device' | 'remote' | 'local';
}

export interface StoreStats {
  readonly cpNumber: number;
  readonly cpCount: number;
  readonly cpBlocksWritten: number;
  /** Milliseconds of all consistency points together. */
  readonly cpMs: number;
  readonly logGroups: number;
  readonly totalBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly dirtyBuffers: number;
  readonly memoryBytes: number;
  readonly blocksRead: number;
  readonly blocksHealed: number;
  readonly splitsActive: number;
  readonly splitsCompleted: number;
  readonly splitBlocksFilled: number;
  readonly splitBackingBlocksRead: number;
  /** Indirect blocks that splits shared whole, and of these the ones of level 2 and more. */
  readonly splitWholeShares: number;
  readonly splitTallShares: number;
  /** A consistency point is being written. */
  readonly cpInProgress: boolean;
  /** What the background job is at. */
  readonly background: 'free' | 'merge' | undefined;
  /** The store had not been closed when it was opened. */
  readonly recovered: boolean;
  /** Of a store on an object store: what clients and splits wrote, without metadata. */
  readonly dataBytesPlaced: number | undefined;
  readonly cleaner: CleanerStats | undefined;
  readonly cache: BlockCacheStats | undefined;
  /** Of a store with durability `local`: how far the object store lags behind. */
  readonly localLog: LocalLogStats | undefined;
  /** If it is swept for orphans. */
  readonly sweep: SweepStats | undefined;
}
