/**
 * NBD sockets and ports of single vdisks: a listener each, on which the vdisk is the default and
 * only export. They last until they are detached, or the vdisk is deleted.
 *
 * 1. What is attached is kept by the keeper before it is answered, and what is detached is not
 *    kept any more: a server that was killed has the same attachments when it is started again.
 * 2. A rename keeps both names while it lasts: whichever the vdisk has after a crash, it is found.
 * 3. What cannot be opened at a start is kept for the next one, unless its vdisk is gone.
 */
import type { Clock } from '../env/clock.js';
import type { ListenAddress } from '../env/listen.js';
import type { LogEvent, LogSink } from '../env/log-sink.js';
import type { ExportTable } from '../target/nbd/exports.js';
import { type NbdMemory, type NbdServer, serveNbd } from '../target/nbd/listener.js';
import type { NbdTls } from '../target/nbd/tls.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import type { Exports } from './exports.js';
import {
  type AttachmentKeeper,
  decodeKept,
  encodeKept,
  type KeptAttachment,
} from './kept-attachments.js';
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
  /** Undefined: nothing outlives the server. */
  readonly keeper: AttachmentKeeper | undefined;
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
  /** Kept from an earlier server, and not open. */
  #waiting: readonly KeptAttachment[] = [];
  /** The last save: one follows the other. */
  #saved: Promise<void> = Promise.resolve();

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  list(): Attachment[] {
    return [...this.#attached]
      .map((each) => toAttachment(each))
      .sort((a, b) => (a.vdisk < b.vdisk ? -1 : 1));
  }

  /**
   * Opens what an earlier server had open. Called once, before all others.
   * @throws {StoreError} invalid, device: what was kept cannot be read
   */
  async restore(): Promise<void> {
    const { keeper, exports } = this.#options;
    const text = await keeper?.load();
    if (keeper === undefined || text === undefined) return;
    const kept = decodeKept(text, keeper.name);
    const there = kept.filter(({ vdisk }) => exports.target(vdisk) !== undefined);
    for (const { vdisk } of kept.filter((each) => !there.includes(each))) {
      const message = `${vdisk} is not there any more: its socket or port is not opened again`;
      this.#log('warn', 'attachment-dropped', message);
    }
    this.#waiting = there;
    for (const { vdisk, where } of there) await this.#restoreOne(vdisk, where);
    if (there.length < kept.length) await this.#save();
  }

  async #restoreOne(vdisk: string, where: Attach): Promise<void> {
    try {
      const { uri } = toAttachment(await this.#open(vdisk, where));
      this.#forget(vdisk);
      this.#log('info', 'attachment-restored', `${vdisk}: at ${uri}`);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const next = 'the next start tries again; attach it elsewhere, or detach it';
      this.#log('warn', 'attachment-failed', `${vdisk}: ${why}: ${next}`);
    }
  }

  /** @throws {ApiError} not-found; in-use: it has one already, or the address has; invalid */
  async attach(name: string, where: Attach): Promise<Attachment> {
    const attached = await this.#open(name, where);
    const waiting = this.#waiting;
    this.#forget(name);
    try {
      await this.#save();
    } catch (error) {
      this.#waiting = waiting;
      await this.#close(attached);
      throw error;
    }
    return toAttachment(attached);
  }

  async #open(name: string, where: Attach): Promise<Attached> {
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
      return attached;
    } catch (error) {
      throw asRefusal(error);
    } finally {
      this.#starting.delete(name);
    }
  }

  /** @throws {ApiError} not-found */
  async detach(name: string): Promise<void> {
    const attached = this.#find(name);
    if (attached === undefined && !this.#waiting.some(({ vdisk }) => vdisk === name)) {
      throw new ApiError('not-found', `${name} has no socket or port of its own`);
    }
    await this.#end(name, attached);
  }

  /**
   * Deletes the vdisk with `act`, then closes its socket or port, which nobody uses. If the act
   * fails, both stay.
   */
  async deleteWith(name: string, act: () => Promise<void>): Promise<void> {
    const attached = this.#find(name);
    await act();
    const isWaiting = this.#waiting.some(({ vdisk }) => vdisk === name);
    if (attached === undefined && !isWaiting) return;
    try {
      await this.#end(name, attached);
    } catch (error) {
      // The vdisk is gone, and that is what was asked for: the next start drops what is kept.
      const why = error instanceof Error ? error.message : String(error);
      this.#log('warn', 'attachment-kept', `${name} is deleted: ${why}`);
    }
  }

  /** Renames the vdisk with `act`: its attachments, and those of its snapshots, go with it. */
  async renameWith(name: string, newName: string, act: () => Promise<void>): Promise<void> {
    const renamed = this.#kept().flatMap(({ vdisk, where }) => {
      const isMeant = vdisk === name || vdisk.startsWith(`${name}@`);
      return isMeant ? [{ vdisk: newName + vdisk.slice(name.length), where }] : [];
    });
    if (renamed.length > 0) await this.#save(renamed);
    try {
      await act();
      this.#waiting = this.#waiting.map((each) => {
        const now = renamed.find(({ where }) => where === each.where);
        return now ?? each;
      });
    } finally {
      if (renamed.length > 0) await this.#save();
    }
  }

  /** Closes them all; what is kept stays. */
  async close(): Promise<void> {
    await Promise.all([...this.#attached].map(({ server }) => server.close()));
    await this.#saved;
  }

  async #end(name: string, attached: Attached | undefined): Promise<void> {
    this.#forget(name);
    if (attached !== undefined) this.#attached.delete(attached);
    try {
      await this.#save();
    } finally {
      await attached?.server.close();
    }
  }

  async #close(attached: Attached): Promise<void> {
    this.#attached.delete(attached);
    await attached.server.close();
  }

  #forget(name: string): void {
    this.#waiting = this.#waiting.filter(({ vdisk }) => vdisk !== name);
  }

  #kept(): KeptAttachment[] {
    const open = [...this.#attached].map(({ target, address }) => {
      return { vdisk: target.name, where: toWhere(address) };
    });
    return [...open, ...this.#waiting];
  }

  /** @param more  kept beside what there is */
  #save(more: readonly KeptAttachment[] = []): Promise<void> {
    const saving = this.#saved.then(() =>
      this.#options.keeper?.save(encodeKept([...this.#kept(), ...more])),
    );
    this.#saved = saving.catch(() => undefined);
    return saving;
  }

  #log(level: LogEvent['level'], event: string, message: string): void {
    this.#options.log({ level, event, message });
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

/** What was asked for, with the port that was taken. */
function toWhere(address: Address): Attach {
  return address.kind === 'unix'
    ? { socket: address.path }
    : { host: address.host, port: address.port };
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
