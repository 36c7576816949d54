/** A store on an object store that is claimed: where it is, and as of when. */
import type { ObjectStore } from '../../env/object-store.js';
import type { Fsinfo } from '../../layout/fsinfo.js';
import type { OwnershipOptions } from './claimant.js';
import type { LocalLog } from './local-log/local-log.js';

export interface ObjectLogPlace {
  readonly objects: ObjectStore;
  readonly prefix: string;
  readonly fsinfo: Fsinfo;
  readonly epoch: number;
  /** First record of this epoch. */
  readonly first: number;
  readonly nonce: () => Uint8Array;
  readonly ownership: OwnershipOptions | undefined;
  /** On the clock of `ownership`. */
  readonly answersFromMs: number;
  /** Begun for this epoch. */
  readonly localLog: LocalLog | undefined;
}
