/** A profiler whose run is played by the test: it emits what it is told, when it is told. */
import type {
  DeviceInfo,
  DeviceVitals,
  LevelInfo,
  RunEnd,
  RunEvent,
  RunOptions,
  SweepRun,
} from '../../src-main/contract/api.ts';
import type { AgentInfo } from '../../src-main/contract/places.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { previewSweep } from '../../src-main/engine/plan.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';

type Body = RunEvent extends infer E ? (E extends unknown ? Omit<E, 'sequence'> : never) : never;

export class FakeProfiler {
  /** Verbs as they reached the run. */
  readonly verbs: string[] = [];
  /** What each run was to be recorded as. */
  readonly options: Omit<RunOptions, 'onEvent'>[] = [];
  /** Set to make the next run fail to start. */
  failure: Error | undefined;
  /** Set to hold the start of a run until it resolves. */
  starting: Promise<void> = Promise.resolve();
  /** Files are real; no worker is started for them. */
  private readonly files = createProfiler();
  private sequence = 0;
  private onEvent: RunOptions['onEvent'];
  private settle: { resolve: (how: RunEnd) => void; reject: (error: Error) => void } | undefined;

  levels = (): readonly LevelInfo[] => [{ name: 'baseline', summary: 'the reference', techniques: [] }];
  devices = async (): Promise<readonly DeviceInfo[]> => [{ backend: 'cpu', usable: true }];
  vitals = async (): Promise<readonly DeviceVitals[]> => [{ backend: 'cpu', memoryBytes: 8e9, memoryFreeBytes: 5e9 }];
  preview = previewSweep;
  models = this.files.models;
  plan = this.files.plan;
  append = this.files.append;
  compare = this.files.compare;
  exportSession = this.files.exportSession;
  agents = async (): Promise<readonly AgentInfo[]> => [];
  knownAgents = async (): Promise<readonly string[]> => [];
  watchFleet = this.files.watchFleet;

  run = async (_sweep: Sweep, { onEvent, ...options }: RunOptions = {}): Promise<SweepRun> => {
    await this.starting;
    if (this.failure) throw this.failure;
    this.options.push(options);
    this.onEvent = onEvent;
    this.sequence = 0;
    const how = new Promise<RunEnd>((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    const verb = (name: string) => () => void this.verbs.push(name);
    return {
      pause: verb('pause'),
      continue: verb('continue'),
      stop: verb('stop'),
      cancel: (how = 'cancelled') => {
        this.verbs.push(`cancel ${how}`);
        this.end(how);
      },
      finished: how.then((how) => ({ points: [], how })),
    };
  };

  emit(body: Body): void {
    this.sequence += 1;
    this.onEvent?.({ ...body, sequence: this.sequence } as RunEvent);
  }

  end(how: RunEnd): void {
    this.emit({ type: 'ended', how });
    this.settle?.resolve(how);
  }

  fault(error: Error): void {
    this.settle?.reject(error);
  }
}
