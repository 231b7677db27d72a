/** A scripted backend on a clock of its own: what each point does is written down before the run. */

import type { PointConfig } from '../../src-main/contract/sweep.ts';
import {
  BackendFailure,
  type Clock,
  type FailureKind,
  type MeasuringBackend,
  type Prepared,
} from '../../src-main/engine/ports.ts';

export class FakeClock implements Clock {
  seconds = 0;
  now(): number {
    return this.seconds;
  }
}

export interface Script {
  readonly prepareSeconds?: number;
  /** Seconds of step n, counted from 0 since the point was last prepared. */
  readonly step?: (n: number) => number;
  /** Steps that make one sample, their mean; one where it is absent. */
  readonly stepsPerSample?: number;
  readonly failPrepare?: FailureKind;
  /** Fails in the n-th call of `sample`, counted from 1 over all preparations. */
  readonly failSample?: readonly [call: number, kind: FailureKind];
  /** Does not fit beside another prepared point. */
  readonly greedy?: boolean;
  readonly relativeL2?: number;
  readonly allocatedBytes?: number;
}

const poisons: readonly FailureKind[] = ['crashed', 'timeout'];

export class FakeBackend implements MeasuringBackend {
  readonly clock: FakeClock;
  readonly script: (config: PointConfig) => Script;
  /** Every call in order: `prepare LEVEL`, `sample LEVEL`, `release LEVEL`. */
  readonly calls: string[] = [];
  readonly live = new Map<number, { config: PointConfig; steps: number }>();
  /** Called before each sample batch; lets a test pause, stop or cancel in the middle. */
  onSample: (config: PointConfig) => void = () => undefined;
  generation = 1;
  /** Samples handed out for a handle of an older generation: must stay 0. */
  staleSamples = 0;
  cancelled = false;
  private handles = 0;
  private readonly sampleCalls = new Map<string, number>();

  constructor(clock: FakeClock, script: (config: PointConfig) => Script = () => ({})) {
    this.clock = clock;
    this.script = script;
  }

  info() {
    return Promise.resolve({ name: 'cpu', threads: 2, instructionSet: 'fake', buildFlags: '' });
  }

  ceilings() {
    return Promise.resolve({ fmaFlopsPerSecond: 1e11, readBytesPerSecond: 1e10 });
  }

  async prepare(config: PointConfig, deadlineSeconds: number): Promise<Prepared> {
    this.calls.push(`prepare ${config.level}`);
    const script = this.script(config);
    this.spend(script.prepareSeconds ?? 0.1, deadlineSeconds);
    if (script.failPrepare) this.fail(script.failPrepare);
    if (script.greedy && this.live.size > 0) this.fail('out-of-memory');
    this.handles += 1;
    this.live.set(this.handles, { config, steps: 0 });
    const kvAllocatedBytes = script.allocatedBytes ?? 1100;
    const relativeL2 = script.relativeL2 ?? 0.004;
    return {
      handle: this.handles,
      generation: this.generation,
      memory: {
        kvLogicalBytes: 1000,
        kvAllocatedBytes,
        kvParts: { payloadBytes: 900, scaleBytes: 100, sinkBytes: 0, residualBytes: 0, slackBytes: 100, tableBytes: 0 },
        peakBytes: 5000,
        extraWeightBytes: 0,
        cachedTokens: config.batch * config.seqLen,
      },
      error: {
        relativeL2,
        cosine: 0.99,
        rms: 0.1,
        maxAbs: 0.5,
        referenceRms: 1,
        tokenP95: 0.006,
        tokenMedian: 0.004,
        positions: [0, 100],
      },
      controls: { zeroOutput: 1, uniformAttention: 0.99, independentLayer: 1.41 },
      work: { flops: 1e8, bytes: 1e7, tokens: config.batch },
    };
  }

  async sample(prepared: Prepared, seconds: number, maxSamples: number, deadline: number): Promise<readonly number[]> {
    const point = this.live.get(prepared.handle);
    if (!point || prepared.generation !== this.generation) {
      this.staleSamples += 1;
      throw new BackendFailure('failed', 'the handle is void', false);
    }
    const { config } = point;
    this.calls.push(`sample ${config.level}`);
    this.onSample(config);
    if (this.cancelled) throw new BackendFailure('cancelled', 'cancelled', false);
    const script = this.script(config);
    const call = (this.sampleCalls.get(config.level) ?? 0) + 1;
    this.sampleCalls.set(config.level, call);
    if (script.failSample?.[0] === call) this.fail(script.failSample[1]);
    const samples: number[] = [];
    for (let spent = 0; samples.length === 0 || (spent < seconds && samples.length < maxSamples); ) {
      const step = script.step?.(point.steps) ?? 1 / 64;
      const taken = step * (script.stepsPerSample ?? 1);
      point.steps += 1;
      spent += taken;
      this.spend(taken, deadline);
      samples.push(step);
    }
    return samples;
  }

  async release(prepared: Prepared): Promise<void> {
    this.calls.push(`release ${this.live.get(prepared.handle)?.config.level}`);
    this.live.delete(prepared.handle);
  }

  cancel(): void {
    this.cancelled = true;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private spend(seconds: number, deadline: number): void {
    this.clock.seconds += Math.min(seconds, deadline);
    if (seconds > deadline) this.fail('timeout');
  }

  private fail(kind: FailureKind): never {
    const poisoned = poisons.includes(kind);
    if (poisoned) {
      this.generation += 1;
      this.live.clear();
    }
    throw new BackendFailure(kind, `scripted ${kind}`, poisoned);
  }
}
