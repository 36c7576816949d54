/**
 * A socket as a session's peer, in the clear or, from some moment on, through TLS.
 *
 * 1. Between the reply that agrees to TLS and the end of TLS's own handshake nothing is read in the
 *    clear and nothing is sent.
 * 2. A client that fails that handshake is cut off.
 */
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../../env/clock.js';
import type { Peer, Session } from './session.js';
import { beginTls, type NbdTls } from './tls.js';

export interface SocketPeerOptions {
  readonly socket: Socket;
  readonly clock: Clock;
  /** How long the client has to take the last replies and go. */
  readonly lingerMs: number;
  readonly tls: NbdTls | undefined;
  /** Why the client was cut off. */
  readonly onRefused: (reason: string) => void;
}

export class SocketPeer implements Peer {
  readonly name: string;
  readonly #options: SocketPeerOptions;
  #socket: Socket;
  #session: Session | undefined;
  #lingerTimer: Timer | undefined;

  constructor(options: SocketPeerOptions) {
    this.#options = options;
    this.#socket = options.socket;
    const { remoteAddress, remotePort } = options.socket;
    this.name = remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`;
  }

  attach(session: Session): void {
    this.#session = session;
    this.#listenTo(this.#socket);
  }

  #listenTo(socket: Socket): void {
    const session = this.#session;
    socket.on('data', (chunk: Buffer) => session?.receive(chunk));
    socket.on('end', () => session?.endOfInput());
    // 'close' follows; what went wrong is the client's business.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#lingerTimer?.cancel();
      session?.closed();
    });
  }

  send(pieces: readonly Uint8Array[], sent: () => void): void {
    const lastIndex = pieces.length - 1;
    if (lastIndex > 0) this.#socket.cork();
    for (const [index, piece] of pieces.entries()) {
      if (index < lastIndex) this.#socket.write(piece);
      // Called once in any case, with an error if the socket is gone.
      else this.#socket.write(piece, () => sent());
    }
    if (lastIndex > 0) this.#socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  startTls(): void {
    const { socket, tls, onRefused } = this.#options;
    if (tls === undefined) return;
    socket.removeAllListeners('data');
    socket.removeAllListeners('end');
    socket.pause();
    // The empty write is done when the reply before it has left.
    socket.write('', () => {
      beginTls(socket, tls).then(
        (encrypted) => {
          this.#socket = encrypted;
          this.#listenTo(encrypted);
        },
        (error: unknown) => {
          const reason = error instanceof Error ? error.message : String(error);
          if (!socket.destroyed) onRefused(`TLS: ${reason}`);
          socket.destroy();
        },
      );
    });
  }

  /** Half-closes, so that the last replies arrive; a client that does not go then is cut off. */
  end(): void {
    if (this.#socket.destroyed) return;
    this.#socket.end();
    this.#socket.resume();
    const { clock, lingerMs } = this.#options;
    this.#lingerTimer ??= clock.setTimer(lingerMs, () => this.destroy());
  }

  destroy(): void {
    this.#socket.destroy();
    this.#options.socket.destroy();
  }
}
