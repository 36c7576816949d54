/** How often each declared fault of a simulated world happened. */

/** Added up over all devices that share the counts. */
export interface FaultCounts {
  cuts: number;
  /** Unsynced or in-flight writes at a cut, by what became of them. */
  writesKept: number;
  writesLost: number;
  writesTorn: number;
  failedWrites: number;
  failedSyncs: number;
  failedReads: number;
  flippedBits: number;
}

export function newFaultCounts(): FaultCounts {
  return {
    cuts: 0,
    writesKept: 0,
    writesLost: 0,
    writesTorn: 0,
    failedWrites: 0,
    failedSyncs: 0,
    failedReads: 0,
    flippedBits: 0,
  };
}

/** Added up over all clients of an object store that share the counts. */
export interface ObjectFaultCounts {
  lostRequests: number;
  lostResponses: number;
  latePuts: number;
  lateCopies: number;
  repeatedPuts: number;
  failedGets: number;
  corruptedGets: number;
  failedLists: number;
  failedDeletes: number;
  delayed: number;
  flippedBits: number;
  cuts: number;
  /** Puts in flight at a cut, by what became of them. */
  putsLandedAtCut: number;
  putsLandedAfterCut: number;
  putsLostAtCut: number;
}

export function newObjectFaultCounts(): ObjectFaultCounts {
  return {
    lostRequests: 0,
    lostResponses: 0,
    latePuts: 0,
    lateCopies: 0,
    repeatedPuts: 0,
    failedGets: 0,
    corruptedGets: 0,
    failedLists: 0,
    failedDeletes: 0,
    delayed: 0,
    flippedBits: 0,
    cuts: 0,
    putsLandedAtCut: 0,
    putsLandedAfterCut: 0,
    putsLostAtCut: 0,
  };
}
