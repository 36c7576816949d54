/**
 * Two servers, two stores on one object store: publish, clone, split to independence; both servers
 * are killed on the way.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { MIB } from '../../src/base/units.js';
import { DaemonLab } from './daemon-lab.js';
import { pattern } from './stores.js';

const SIZE = 48 * MIB;

export interface StorePlace {
  /** As `--store` takes it. */
  readonly address: string;
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** What others call the store. */
  readonly named: RegExp;
}

class Server {
  readonly #lab: DaemonLab;
  readonly place: StorePlace;

  constructor(lab: DaemonLab, place: StorePlace) {
    this.#lab = lab;
    this.place = place;
  }

  async start(): Promise<void> {
    const { address, args = [], environment = {} } = this.place;
    await this.#lab.start({ args: ['--store', address, '--size', '2T', ...args], environment });
  }

  async kill(): Promise<void> {
    assert.equal(await this.#lab.last.kill('SIGKILL'), 'SIGKILL');
  }

  /** What it answers; a refusal is its kind and detail. */
  call(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    return this.#lab.call(method, path, body);
  }

  async done(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const answer = await this.call(method, path, body);
    assert.equal(answer.detail, undefined, `${method} ${path}`);
    return answer;
  }

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    const answer = await this.#data('PUT', `${name}/data?offset=${offset}`, bytes);
    answer.resume();
    await once(answer, 'end');
  }

  /** SHA-256 of what a client reads, also while it is split. */
  async hash(name: string): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of await this.#data('GET', `${name}/data`)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  }

  async #data(method: string, path: string, bytes?: Uint8Array): Promise<IncomingMessage> {
    const type = 'application/octet-stream';
    const headers = method === 'GET' ? { accept: type } : { 'content-type': type };
    const socketPath = this.#lab.path('api');
    const options = { socketPath, method, path: `/v1/vdisks/${path}`, headers, agent: false };
    const sent = request(options);
    sent.end(bytes);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage];
    assert.equal(answer.statusCode, 200, path);
    return answer;
  }
}

/**
 * Hashes of what clients read hold all the way. `placeOf` gives each of the two servers its store;
 * the folder goes when they have ended.
 */
export async function publishAcrossStores(
  placeOf: (which: 'library' | 'shop', folder: string) => StorePlace,
): Promise<void> {
  const labs = [new DaemonLab(), new DaemonLab()] as const;
  const library = new Server(labs[0], placeOf('library', labs[0].folder));
  const shop = new Server(labs[1], placeOf('shop', labs[1].folder));
  try {
    await Promise.all([library.start(), shop.start()]);
    await story(library, shop);
  } finally {
    for (const lab of labs) await lab.close();
  }
}

async function story(library: Server, shop: Server): Promise<void> {
  await library.done('POST', '/v1/vdisks', { name: 'golden', sizeBytes: SIZE });
  await library.write('golden', 3 * MIB + 512, pattern(30 * MIB, 1));
  const items = [{ vdisk: 'golden', snapshot: 'v1' }];
  await library.done('POST', '/v1/snapshots', { items });
  const { published } = await library.done('PUT', '/v1/vdisks/golden@v1/publication');
  assert.equal(published, 'golden@v1');
  const hash = await library.hash('golden@v1');

  const source = `${library.place.address}#golden@v1`;
  await shop.done('POST', '/v1/clones', { source, names: ['web'] });
  assert.equal(await shop.hash('web'), hash);
  await shop.write('web', 20 * MIB + 100, pattern(2 * MIB, 2));
  const own = await shop.hash('web');
  assert.notEqual(own, hash);
  const { publications } = await library.done('GET', '/v1/publications');
  const [publication] = publications as { address: string; holders: { store: string }[] }[];
  assert.equal(publication?.address, source);
  assert.match(publication.holders[0]?.store ?? '', shop.place.named);

  const slowly = { mode: 'copy', pace: 'rate', rateBytesPerSecond: 4 * MIB };
  const share = await shop.call('POST', '/v1/vdisks/web/split', { mode: 'share' });
  assert.equal(share.kind, 'invalid');
  await shop.done('POST', '/v1/vdisks/web/split', slowly);
  await library.kill();
  assert.equal(await shop.hash('web'), own, 'without the server that published it');
  await shop.kill();
  await Promise.all([library.start(), shop.start()]);
  const { kind, detail } = await library.call('DELETE', '/v1/vdisks/golden@v1/publication');
  assert.equal(kind, 'in-use');
  assert.match(String(detail), / as golden-v1-/);
  await shop.done('PATCH', '/v1/vdisks/web/split', { pace: 'now' });
  while ((await shop.done('GET', '/v1/vdisks/web')).backing !== null);
  while (((await shop.done('GET', '/v1/vdisks')).vdisks as unknown[]).length > 1) {
    // The pin goes once the release is durable in the tree.
    await shop.done('POST', '/v1/consistency-point');
  }

  await library.done('DELETE', '/v1/vdisks/golden@v1/publication');
  await library.done('DELETE', '/v1/vdisks/golden?inUse=defer');
  await library.done('POST', '/v1/consistency-point');
  assert.equal(await shop.hash('web'), own, 'it stands alone');
  await shop.kill();
  await shop.start();
  assert.equal(await shop.hash('web'), own);
}
