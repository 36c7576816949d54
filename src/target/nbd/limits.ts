/** What clients together and one client alone may take from the server. */
import { KIB, MIB } from '../../base/units.js';

export interface NbdLimits {
  /** Further connections are closed at once. */
  readonly connectionsMax: number;
  /** From the connection to the end of the handshake. */
  readonly handshakeMs: number;
  /** Options of one handshake. A client that asks about each of 10,000 exports sends 30,000. */
  readonly optionsMax: number;
  /** Requests of one connection that were begun and are not answered; then reading stops. */
  readonly requestsMax: number;
  /** Buffers that one connection holds: payloads, replies. Beyond it reading stops. */
  readonly connectionBytesMax: number;
  /** Buffers that all connections hold, but for `floorBytes` of each. */
  readonly totalBytesMax: number;
  /** What a connection may hold whatever the others do, so that small requests always go on. */
  readonly floorBytes: number;
  /** Replies of one connection that the client has not taken; beyond it reading stops. */
  readonly unsentBytesMax: number;
  /**
   * While others wait for memory, a connection that holds more than its floor and has moved no byte
   * for so long is closed.
   */
  readonly stallMs: number;
  /** After close: how long clients have to take the last replies and go. */
  readonly drainMs: number;
}

export const DEFAULT_NBD_LIMITS: NbdLimits = {
  connectionsMax: 4096,
  handshakeMs: 30_000,
  optionsMax: 65_536,
  requestsMax: 1024,
  connectionBytesMax: 64 * MIB,
  totalBytesMax: 512 * MIB,
  floorBytes: 256 * KIB,
  unsentBytesMax: 4 * MIB,
  stallMs: 30_000,
  drainMs: 5_000,
};
