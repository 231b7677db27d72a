/** Where the windows of a host may let sweeps run. A window names a place; only the host knows how it is reached. */
import { InputError } from '../contract/input-error.ts';
import type { AgentInfo, FleetView, Place, Places } from '../contract/places.ts';
import type { Profiler } from './compose.ts';
import type { RunPlace } from './run-hub.ts';

type PlaceProfiler = Pick<Profiler, 'agents' | 'knownAgents' | 'watchFleet'>;

export class PlaceBook {
  private readonly profiler: PlaceProfiler;
  private readonly watch: ReturnType<PlaceProfiler['watchFleet']> | undefined;
  /** What is wrong with the address of the queue. */
  private readonly fault: InputError | undefined;

  /** @param queue without a password; one that is no address is told to whoever looks at it */
  constructor(profiler: PlaceProfiler, queue: string | undefined) {
    this.profiler = profiler;
    try {
      this.watch = queue === undefined ? undefined : profiler.watchFleet(queue);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      this.fault = error;
    }
  }

  async list(): Promise<Places> {
    const agents = await this.profiler.knownAgents();
    return { agents, ...(this.watch ? { queue: this.watch.queue } : {}) };
  }

  lookAtFleet = async (): Promise<FleetView | null> => {
    if (this.fault) throw this.fault;
    return (await this.watch?.look()) ?? null;
  };

  askAgents = (): Promise<readonly AgentInfo[]> => this.profiler.agents([]);

  /** @throws InputError for a place that this host does not know */
  async resolve(place: Place | undefined): Promise<RunPlace> {
    if (!place) return {};
    if (place.kind === 'fleet') {
      if (!this.watch)
        throw this.fault ?? new InputError('this host was given no queue: start it with --queue ADDRESS', 'place');
      const { device } = place;
      return { fleet: { queue: this.watch.queue, ...(device === undefined ? {} : { device }) } };
    }
    if (!(await this.profiler.knownAgents()).includes(place.host))
      throw new InputError(`no agent is known as ${place.host}: reach it once with \`fastmqa agents HOST\``, 'place');
    return { remote: { host: place.host } };
  }

  close(): void {
    this.watch?.close();
  }
}
