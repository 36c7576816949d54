/**
 * A load that real programs put on the server, beside the simulator's acts, and that they check.
 */
import type { RemoteStore } from './remote-store.js';
import type { LoadFacts } from './tally.js';

export interface OutsideLoad {
  readonly name: string;
  /** Starts it, on a vdisk of its own; it goes on until the server is killed. */
  begin(store: RemoteStore, seed: number): Promise<void>;
  /** The server was killed at this moment (performance.now): waits for the end of its programs. */
  killed(killedMs: number): Promise<void>;
  /** The server is there again. @throws {Violation} something that was flushed is not there */
  verify(store: RemoteStore): Promise<LoadFacts>;
}
