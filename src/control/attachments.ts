/**
 * NBD sockets and ports of single vdisks: a listener each, on which the vdisk is the default and
 * only export. They last until they are detached, the vdisk is deleted, or the server stops.
 */
import type { Clock } from '../env/clock.js';
import type { ListenAddress } from '../env/listen.js';
import type { LogSink } from '../env/log-sink.js';
import type { ExportTable } from '../target/nbd/exports.js';
import { type NbdMemory, type NbdServer, serveNbd } from '../target/nbd/listener.js';
import type { NbdTls } from '../target/nbd/tls.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import type { Exports } from './exports.js';
import { isLoopback, nbdUri, toAddress } from './nbd-uri.js';
import { ApiError } from './problem.js';
import type { Address, Attach, Attachment, Client } from './schemas.js';

/** sun_path has 108 bytes, one of them a zero (unix(7)). */
const SOCKET_BYTES_MAX = 107;

export interface AttachmentsOptions {
  readonly exports: Exports;
  readonly memory: NbdMemory;
  readonly clock: Clock;
  readonly log: LogSink;
  /** Permissions of socket files. */
  readonly socketMode: number;
  /** On TCP ports. */
  readonly nbdTls?: NbdTls | undefined;
  /** Serve beyond loopback without TLS. */
  readonly allowInsecure: boolean;
}

interface Attached {
  /** Its name is that of the vdisk now. */
  readonly target: BlockTarget;
  readonly address: Address;
  readonly uri: string;
  readonly server: NbdServer;
}

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #attached = new Set<Attached>();
  /** Names whose listener is being started. */
  readonly #starting = new Set<string>();

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  list(): Attachment[] {
    return [...this.#attached]
      .map((each) => toAttachment(each))
      .sort((a, b) => (a.vdisk < b.vdisk ? -1 : 1));
  }

  /** @throws {ApiError} not-found; in-use: it has one already, or the address has; invalid */
  async attach(name: string, where: Attach): Promise<Attachment> {
    const { exports, memory, clock, log, nbdTls } = this.#options;
    const target = exports.target(name);
    if (target === undefined) throw new ApiError('not-found', `there is no vdisk ${name}`);
    const there = this.#find(name);
    if (there !== undefined || this.#starting.has(name)) {
      const at = there === undefined ? '' : `, ${toAttachment(there).uri}`;
      throw new ApiError('in-use', `${name} has its own socket or port already${at}: detach it`);
    }
    const address = this.#toListenAddress(where);
    this.#starting.add(name);
    try {
      const table = exportTableOf(target, exports);
      const addresses = [address];
      const tls = address.kind === 'tcp' ? nbdTls : undefined;
      const server = await serveNbd({ exports: table, addresses, memory, clock, log, tls });
      const bound = toAddress(address, server.port);
      const attached = { target, address: bound, uri: nbdUri(bound, '', tls), server };
      this.#attached.add(attached);
      return toAttachment(attached);
    } catch (error) {
      throw asRefusal(error);
    } finally {
      this.#starting.delete(name);
    }
  }

  /** @throws {ApiError} not-found */
  async detach(name: string): Promise<void> {
    const attached = this.#find(name);
    if (attached === undefined) {
      throw new ApiError('not-found', `${name} has no socket or port of its own`);
    }
    await this.#close(attached);
  }

  /**
   * Deletes the vdisk with `act`, then closes its socket or port, which nobody uses. If the act
   * fails, both stay.
   */
  async deleteWith(name: string, act: () => Promise<void>): Promise<void> {
    const attached = this.#find(name);
    await act();
    if (attached !== undefined) await this.#close(attached);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#attached].map((each) => this.#close(each)));
  }

  async #close(attached: Attached): Promise<void> {
    this.#attached.delete(attached);
    await attached.server.close();
  }

  #find(name: string): Attached | undefined {
    for (const each of this.#attached) if (each.target.name === name) return each;
    return undefined;
  }

  #toListenAddress(where: Attach): ListenAddress {
    if ('socket' in where) {
      const bytes = Buffer.byteLength(where.socket);
      if (bytes > SOCKET_BYTES_MAX) {
        const message = `${where.socket} has ${bytes} bytes, and the path of a socket at most`;
        throw new ApiError('invalid', `${message} ${SOCKET_BYTES_MAX}: take a shorter one`);
      }
      const mode = this.#options.socketMode;
      return { kind: 'unix', path: where.socket, mode, replaceStale: true };
    }
    const { host = '127.0.0.1', port } = where;
    const { allowInsecure, nbdTls } = this.#options;
    if (!isLoopback(host) && nbdTls?.mode !== 'require' && !allowInsecure) {
      const message = `${host} is not loopback, and clients would not be asked who they are: `;
      throw new ApiError('invalid', `${message}the server needs nbd.tls, or nbd.allow-insecure`);
    }
    return { kind: 'tcp', host, port };
  }
}

function clientsOf(server: NbdServer): Client[] {
  return server.connections().map((connection) => ({
    id: connection.id,
    peer: connection.peer,
    name: connection.exportName ?? null,
    requestsInFlight: connection.requestsInFlight,
    heldBytes: connection.heldBytes,
  }));
}

function toAttachment({ target, address, uri, server }: Attached): Attachment {
  return {
    vdisk: target.name,
    address,
    uri,
    readOnly: target.readOnly,
    clients: clientsOf(server),
  };
}

/** One export: whoever names none gets it, and so does who names the vdisk. */
function exportTableOf(target: BlockTarget, exports: Exports): ExportTable {
  return {
    get defaultName() {
      return target.name;
    },
    list: () => [target.name],
    open: (name) => (name === target.name ? exports.open(name) : undefined),
    attached: (connection) => exports.attached(connection),
    detached: (connection) => exports.detached(connection),
  };
}

/** An address that cannot be used is the fault of who asked for it. */
function asRefusal(error: unknown): unknown {
  const isDevice = error instanceof Error && 'kind' in error && error.kind === 'device';
  return isDevice ? new ApiError('invalid', error.message) : error;
}
