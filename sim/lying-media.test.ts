/**
 * The simulator's own checks can fail: media that do not keep their word are found out. Without
 * these tests, a simulator that compares nothing would pass everything.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStoreError } from '../src/base/store-error.js';
import { BLOCK_BYTES } from '../src/base/units.js';
import { copyThroughMemory } from '../src/env/copy-blocks.js';
import type { Device } from '../src/env/device.js';
import type { ObjectStore } from '../src/env/object-store.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { Violation } from './model/violation.js';
import { cutAtEveryWrite } from './scripted.js';
import { simulate } from './simulation.js';
import type { SimulatedDevice } from './world/simulated-device.js';
import type { SimulatedObjectStore } from './world/simulated-object-store.js';

/** A device that does what it is told, but for what the lie replaces. */
function disguised(device: SimulatedDevice, lie: Partial<Device>): Device {
  const liar: Device = {
    name: device.name,
    sizeBytes: device.sizeBytes,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    writeDurable: (offset, from) => device.writeDurable(offset, from),
    copyBlocks: (copies) => copyThroughMemory(liar, copies),
    sync: () => device.sync(),
    close: () => device.close(),
    ...lie,
  };
  return liar;
}

/** Takes as long as a call of the device, and does nothing. */
const pretend = (device: SimulatedDevice): Promise<void> => device.read(0, []);

/** True now and then, the same in every run. */
function rarely(oneIn: number): () => boolean {
  const random = seededRandom(5);
  return () => random.below(oneIn) === 0;
}

type DeviceLie = (device: SimulatedDevice) => Device;

/** A liar goes on where it was when the device is opened again. */
const DEVICE_LIES = {
  'acknowledges a sync without doing it': () => (device) =>
    disguised(device, { sync: () => pretend(device) }),

  'acknowledges a durable write that is volatile': () => (device) =>
    disguised(device, { writeDurable: (offset, from) => device.write(offset, from) }),

  'loses one write in 100': () => {
    const isLost = rarely(100);
    return (device) =>
      disguised(device, {
        write: (offset, from) => (isLost() ? pretend(device) : device.write(offset, from)),
      });
  },

  'writes one in 100 to the block behind': () => {
    const isAstray = rarely(100);
    return (device) =>
      disguised(device, {
        write: (offset, from) => {
          const length = from.reduce((sum, { byteLength }) => sum + byteLength, 0);
          const hasRoom = offset + BLOCK_BYTES + length <= device.sizeBytes;
          return device.write(isAstray() && hasRoom ? offset + BLOCK_BYTES : offset, from);
        },
      });
  },

  'answers one read in 20 with rot': () => rottenReads(20),

  'answers one read in 20 with what its block held before the last write': staleReads,
} satisfies Record<string, () => DeviceLie>;

function rottenReads(oneIn: number): DeviceLie {
  const isRotten = rarely(oneIn);
  return (device) =>
    disguised(device, {
      read: async (offset, into) => {
        await device.read(offset, into);
        const [first] = into;
        if (first !== undefined && isRotten()) first[100] = (first[100] ?? 0) ^ 4;
      },
    });
}

/** Remembers what each write replaced, and tells that. */
function staleReads(): DeviceLie {
  const isStale = rarely(20);
  const before = new Map<number, Buffer>();
  const now = new Map<number, Buffer>();
  const note = (offset: number, from: readonly Uint8Array[]): void => {
    const bytes = Buffer.concat(from);
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const block = (offset + at) / BLOCK_BYTES;
      const old = now.get(block);
      if (old !== undefined) before.set(block, old);
      now.set(block, bytes.subarray(at, at + BLOCK_BYTES));
    }
  };
  return (device) =>
    disguised(device, {
      read: async (offset, into) => {
        await device.read(offset, into);
        const [first] = into;
        const old = before.get(offset / BLOCK_BYTES);
        if (first?.length === BLOCK_BYTES && old !== undefined && isStale()) first.set(old);
      },
      write: (offset, from) => {
        note(offset, from);
        return device.write(offset, from);
      },
      writeDurable: (offset, from) => {
        note(offset, from);
        return device.writeDurable(offset, from);
      },
    });
}

const OBJECT_LIES: Record<string, () => (objects: SimulatedObjectStore) => ObjectStore> = {
  'acknowledges one put in 20 that it drops': () => {
    const isDropped = rarely(20);
    return (objects) =>
      disguisedObjects(objects, {
        putNew: async (key, chunks) => {
          if (!isDropped()) return objects.putNew(key, chunks);
          await objects.list('nothing');
          return 'created';
        },
      });
  },

  'deletes one object too many': () => (objects) =>
    disguisedObjects(objects, {
      delete: (keys) => objects.delete([...keys, ...keys.map(followerOf)]),
    }),

  'holds one object in 20 with rot': () => {
    const isRotten = rarely(20);
    const rotten = new Map<string, boolean>();
    return (objects) =>
      disguisedObjects(objects, {
        get: async (key, offset = 0, length) => {
          const bytes = await objects.get(key, offset, length);
          // What is at rest so is so at every reading.
          if (!rotten.has(key)) rotten.set(key, isRotten());
          const at = 100 - offset;
          if (bytes === undefined || rotten.get(key) !== true || at < 0) return bytes;
          const copy = Uint8Array.from(bytes);
          if (at < copy.length) copy[at] = (copy[at] ?? 0) ^ 4;
          return copy;
        },
      });
  },
};

function disguisedObjects(objects: SimulatedObjectStore, lie: Partial<ObjectStore>): ObjectStore {
  return {
    name: objects.name,
    putNew: (key, chunks) => objects.putNew(key, chunks),
    get: (key, offset, length) => objects.get(key, offset, length),
    delete: (keys) => objects.delete(keys),
    list: (prefix, after) => objects.list(prefix, after),
    ...lie,
  };
}

/** The key of the record with the next number. */
function followerOf(key: string): string {
  const start = key.lastIndexOf('/') + 1;
  const next = Number.parseInt(key.slice(start), 16) + 1;
  return key.slice(0, start) + next.toString(16).padStart(16, '0');
}

/** What a run may say when the medium has lied: it is wrong, or the store refuses it. */
function isFoundOut(error: unknown): boolean {
  if (error instanceof Violation || isStoreError(error, 'corrupt')) return true;
  // Of a local log both heads may be read wrong: then it does not look like one.
  return isStoreError(error, 'invalid') && error.message.includes('it is no local log');
}

const SHORT = { actsMin: 600, cutsMin: 8 };

for (const [what, lie] of Object.entries(DEVICE_LIES)) {
  test(`a device that ${what} is found out`, async () => {
    const disguise = lie();
    const run = async (): Promise<void> => {
      for (let seed = 1; seed <= 6; seed++) {
        await simulate({ seed, medium: 'in-place', disguise, ...SHORT });
      }
    };
    await assert.rejects(run, isFoundOut);
  });
}

for (const [what, lie] of Object.entries(OBJECT_LIES)) {
  test(`an object store that ${what} is found out`, async () => {
    const disguiseObjects = lie();
    const run = (): Promise<unknown> =>
      cutAtEveryWrite({ medium: 'object-log', first: 10, stride: 10, disguiseObjects });
    await assert.rejects(run, isFoundOut);
  });
}

/** What only a local log is asked: it is written durably, and read when a store is opened. */
const LOCAL_LIES = {
  'acknowledges a durable write that is volatile':
    DEVICE_LIES['acknowledges a durable write that is volatile'],
  'answers one read in 3 with rot': () => rottenReads(3),
};

for (const [what, lie] of Object.entries(LOCAL_LIES)) {
  test(`a local disk that ${what} is found out`, async () => {
    const disguise = lie();
    const run = async (): Promise<void> => {
      for (let seed = 1; seed <= 6; seed++) {
        await simulate({ seed, medium: 'object-log', isLocal: true, disguise, ...SHORT });
      }
    };
    await assert.rejects(run, isFoundOut);
  });
}
