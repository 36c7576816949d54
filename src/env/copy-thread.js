/**
 * A thread that copies blocks within one file: reads them, compares each with its checksum, and
 * writes them. block-copier.ts starts it and tells it what to do; the two share descriptors.
 *
 * JavaScript, and without imports of ours: so a thread can run it as it is, from the sources, too.
 */
import { readlinkSync, readSync, writeSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';

/** @typedef {import('./block-copier.js').CopyRequest} CopyRequest */
/** @typedef {import('./block-copier.js').CopyReply} CopyReply */

const BLOCK_BYTES = 4096;
/** @type {{ descriptor: number; blocksMax: number; niceness: number }} */
const { descriptor, blocksMax, niceness } = workerData;
const memory = Buffer.allocUnsafeSlow(blocksMax * BLOCK_BYTES);

makeWay();
parentPort?.on('message', (/** @type {CopyRequest} */ request) => {
  parentPort?.postMessage(copy(request));
});

/** Linux has a priority for each thread. Where that cannot be set, the copy is only less polite. */
function makeWay() {
  try {
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
    setPriority(thread, Math.min(19, getPriority() + niceness));
  } catch {
    // Nothing depends on it.
  }
}

/**
 * @param {CopyRequest} request
 * @returns {CopyReply}
 */
function copy({ id, from, to, crcs }) {
  const length = crcs.length * BLOCK_BYTES;
  try {
    if (!readWhole(from, length)) return { id, bad: 0, error: undefined };
  } catch {
    // Which block it is, and why, is found out by who reads them one by one.
    return { id, bad: 0, error: undefined };
  }
  for (let index = 0; index < crcs.length; index++) {
    const block = memory.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
    if (crc32(block) !== crcs[index]) return { id, bad: index, error: undefined };
  }
  try {
    writeWhole(to, length);
    return { id, bad: -1, error: undefined };
  } catch (error) {
    return { id, bad: -1, error };
  }
}

/**
 * @param {number} position
 * @param {number} length
 * @returns {boolean} false if the file ends before
 */
function readWhole(position, length) {
  for (let done = 0; done < length; ) {
    const count = readSync(descriptor, memory, done, length - done, position + done);
    if (count === 0) return false;
    done += count;
  }
  return true;
}

/**
 * @param {number} position
 * @param {number} length
 */
function writeWhole(position, length) {
  for (let done = 0; done < length; ) {
    const count = writeSync(descriptor, memory, done, length - done, position + done);
    if (count === 0) throw new Error(`nothing was written at byte ${position + done}`);
    done += count;
  }
}
