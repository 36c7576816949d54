/**
 * A store and its servers: NBD for its clients, the control API for who manages it.
 *
 * Life: start (everything listens), then close: no new clients and requests, those under way are
 * answered (for `drainMs` at most), the sockets are gone. The store is the caller's to close.
 */
import { ControlPlane, type ControlPlaneOptions } from '../control/control-plane.js';
import { allHandlers } from '../control/handlers/handlers.js';
import { ControlServer } from '../control/http-server.js';
import { IdempotencyKeys } from '../control/idempotency.js';
import { nbdUri, toAddress } from '../control/nbd-uri.js';
import type { ListenAddress } from '../env/listen.js';
import { type NbdServer, serveNbd } from '../target/nbd/listener.js';

export interface ApiListener {
  readonly address: ListenAddress;
  /** What clients must bring; undefined: who reaches the address may do all. */
  readonly token: string | undefined;
}

export interface ServiceOptions extends ControlPlaneOptions {
  readonly api: readonly ApiListener[];
  readonly nbd: readonly ListenAddress[];
  /** How long requests under way may take when the service closes. */
  readonly drainMs: number;
  readonly onBug: (error: unknown, where: string) => void;
}

export class Service {
  readonly plane: ControlPlane;
  readonly #options: ServiceOptions;
  readonly #control: ControlServer;
  readonly #nbd: NbdServer[] = [];

  /** @throws {StoreError} in-use, device: an address cannot be used; nothing listens then */
  static async start(options: ServiceOptions): Promise<Service> {
    const service = new Service(options);
    try {
      await service.#start();
    } catch (error) {
      await service.close();
      throw error;
    }
    return service;
  }

  private constructor(options: ServiceOptions) {
    const { clock, onBug } = options;
    this.#options = options;
    this.plane = new ControlPlane(options);
    const handlers = allHandlers(this.plane);
    const idempotency = new IdempotencyKeys(clock);
    this.#control = new ControlServer({ handlers, idempotency, clock, onBug });
  }

  async #start(): Promise<void> {
    const { api, nbd, memory, clock, log, nbdTls } = this.#options;
    const { plane } = this;
    await plane.resume();
    await plane.attachments.restore();
    // NBD first: whoever asks the API finds all there.
    for (const address of nbd) {
      const { exports } = plane;
      const bound = toAddress(address, undefined);
      // Who reaches a unix socket is on this machine, and let in by its mode.
      const tls = bound.kind === 'tcp' ? nbdTls : undefined;
      const server = await serveNbd({ exports, addresses: [address], memory, clock, log, tls });
      this.#nbd.push(server);
      const real = toAddress(address, server.port);
      plane.nbd.push({ address: real, uri: nbdUri(real, '', tls) });
    }
    for (const { address, token } of api) await this.#control.listen(address, token);
    plane.api.push(...this.#control.addresses);
  }

  async close(): Promise<void> {
    // Event streams would never end by themselves.
    this.plane.events.close();
    const servers = this.#nbd.map((server) => server.close());
    servers.push(this.plane.attachments.close());
    await Promise.all([this.#control.close(this.#options.drainMs), ...servers]);
    // Among them what the last requests have attached.
    await this.plane.close();
  }
}
