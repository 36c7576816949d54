import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Look, Progress } from './progress.js';

function look(cpNumber: number, filledBlocks: number, cpInProgress = false): Look {
  return { cpNumber, filledBlocks, cpInProgress, positions: new Map() };
}

function durableAfter(...looks: Look[]): number | undefined {
  const progress = new Progress();
  for (const each of looks) progress.note(each);
  return progress.durable?.filledBlocks;
}

it('what was filled before a consistency point began is durable when the next number is said', () => {
  assert.equal(durableAfter(look(7, 10), look(7, 20)), undefined);
  assert.equal(durableAfter(look(7, 10), look(7, 20), look(8, 30)), 20);
});

it('what was filled while one was being written is not in it', () => {
  assert.equal(durableAfter(look(7, 10), look(7, 20, true), look(8, 30)), 10);
  assert.equal(durableAfter(look(7, 10, true), look(8, 20)), undefined);
  assert.equal(durableAfter(look(7, 10), look(8, 20, true), look(9, 30)), 10);
});
