/**
 * A thread that copies blocks within one file: reads them, compares each with its checksum, and
 * writes them. block-copier.ts starts it and tells it what to do; the two share descriptors.
 *
 * JavaScript, and without imports of ours: so a thread can run it as it is, from the sources, too.
 */
import { readlinkSync, readSync, readvSync, writeSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';

/** @typedef {import('./block-copier.js').CopyRequest} CopyRequest */
/** @typedef {import('./block-copier.js').CopyReply} CopyReply */

const BLOCK_BYTES = 4096;
/** @type {{ descriptor: number; blocksMax: number; niceness: number }} */
const { descriptor, blocksMax, niceness } = workerData;
const memory = Buffer.allocUnsafeSlow(blocksMax * BLOCK_BYTES);
/** Reading on over a few blocks that nobody wants takes less time than another call. */
const GAP_BLOCKS_MAX = 8;
const unwanted = Buffer.allocUnsafeSlow(GAP_BLOCKS_MAX * BLOCK_BYTES);

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
  const bad = readAll(from, crcs);
  try {
    writeAll(to, bad);
    return { id, bad, error: undefined };
  } catch (error) {
    return { id, bad, error };
  }
}

/** @param {number} index */
function blockAt(index) {
  return memory.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
}

/**
 * Reads each block into its place of the memory.
 * @param {Float64Array} from
 * @param {Uint32Array} crcs
 * @returns {number[]} those that cannot be read or have another checksum
 */
function readAll(from, crcs) {
  const unread = new Set();
  for (let first = 0; first < from.length; ) {
    const end = endOfSpan(from, first);
    if (!readSpan(from, first, end)) {
      for (let index = first; index < end; index++) if (!readOne(from, index)) unread.add(index);
    }
    first = end;
  }
  const bad = [];
  for (let index = 0; index < from.length; index++) {
    if (unread.has(index) || crc32(blockAt(index)) !== crcs[index]) bad.push(index);
  }
  return bad;
}

/**
 * @param {Float64Array} from
 * @param {number} first
 * @returns {number} behind the last block that is read in the same call
 */
function endOfSpan(from, first) {
  let end = first + 1;
  for (; end < from.length; end++) {
    const gap = Number(from[end]) - Number(from[end - 1]) - 1;
    if (gap < 0 || gap > GAP_BLOCKS_MAX) break;
  }
  return end;
}

/**
 * @param {Float64Array} from
 * @param {number} first
 * @param {number} end
 * @returns {boolean} false if the call has not read all of them
 */
function readSpan(from, first, end) {
  const pieces = [];
  let length = 0;
  let start = first;
  for (let index = first + 1; index <= end; index++) {
    const gap = index === end ? 1 : Number(from[index]) - Number(from[index - 1]) - 1;
    if (gap === 0) continue;
    pieces.push(memory.subarray(start * BLOCK_BYTES, index * BLOCK_BYTES));
    length += (index - start) * BLOCK_BYTES;
    start = index;
    if (index === end) break;
    pieces.push(unwanted.subarray(0, gap * BLOCK_BYTES));
    length += gap * BLOCK_BYTES;
  }
  try {
    return readvSync(descriptor, pieces, Number(from[first]) * BLOCK_BYTES) === length;
  } catch {
    // One of them, or of those in between.
    return false;
  }
}

/**
 * @param {Float64Array} from
 * @param {number} index
 */
function readOne(from, index) {
  try {
    const position = Number(from[index]) * BLOCK_BYTES;
    return readSync(descriptor, blockAt(index), 0, BLOCK_BYTES, position) === BLOCK_BYTES;
  } catch {
    return false;
  }
}

/**
 * Writes each block but the bad ones; neighbours in one call.
 * @param {Float64Array} to
 * @param {readonly number[]} bad  in order
 */
function writeAll(to, bad) {
  let nextBad = 0;
  for (let first = 0; first < to.length; ) {
    if (bad[nextBad] === first) {
      nextBad++;
      first++;
      continue;
    }
    let end = first + 1;
    while (end < to.length && bad[nextBad] !== end && to[end] === Number(to[end - 1]) + 1) end++;
    writeWhole(Number(to[first]) * BLOCK_BYTES, first * BLOCK_BYTES, end * BLOCK_BYTES);
    first = end;
  }
}

/**
 * @param {number} position
 * @param {number} from  of the memory
 * @param {number} end
 */
function writeWhole(position, from, end) {
  for (let done = from; done < end; ) {
    const count = writeSync(descriptor, memory, done, end - done, position + done - from);
    if (count === 0) throw new Error(`nothing was written at byte ${position + done - from}`);
    done += count;
  }
}
