/** How far a device's memory goes on a model: what is asked, what the host plans, and what was allocated for real. */
import { createStore } from 'zustand/vanilla';
import type { MemoryPlan, PlanRow } from '../../src-main/contract/model.ts';
import { parseBytes } from '../../src-main/contract/sizes.ts';
import { CallError, type Client } from '../client/client.ts';
import type { createViewStore, View } from './view.ts';

type Fields = View['planner'];

export interface PlannerStore {
  /** Models that the host knows by name. */
  readonly models: readonly string[];
  /** The last one that could be made: it stays in view while a field is being typed. */
  readonly plan: MemoryPlan | undefined;
  /** What is wrong, by field; `model` also for what no field is to blame for. */
  readonly errors: Partial<Record<keyof Fields, string>>;
  /** Rows of levels that were allocated for real, by level: those of this model and context. */
  readonly proofs: Readonly<Record<string, PlanRow>>;
  /** Level that is being allocated. */
  readonly proving: string | undefined;
  /** Level that stands out. */
  readonly level: string | undefined;
}

/** Shorter than a pause in typing that feels like one. */
const settleMilliseconds = 150;

const wholeNumber = (text: string): number | undefined => {
  const value = Number(text.trim().replaceAll(/(?<=\d)[ ,_](?=\d{3})/g, ''));
  return Number.isInteger(value) && value >= 1 && value <= 2 ** 27 ? value : undefined;
};

export function createPlannerStore(
  client: Client,
  view: ReturnType<typeof createViewStore>,
  attempt: (deed: () => Promise<unknown>) => Promise<void>,
) {
  const store = createStore<PlannerStore>(() => ({
    ...{ models: [], errors: {}, proofs: {} },
    ...{ plan: undefined, proving: undefined, level: undefined },
  }));
  let timer: ReturnType<typeof setTimeout> | undefined;
  let latest = 0;
  let isStopped = true;

  async function ask({ model, memory, context }: Fields): Promise<void> {
    const [memoryBytes, tokens] = [parseBytes(memory), wholeNumber(context)];
    const errors = {
      ...(memoryBytes === undefined && { memory: 'expected a size like 80 GiB' }),
      ...(tokens === undefined && { context: 'expected a number of tokens' }),
      ...(model.trim() === '' && { model: 'expected a model' }),
    };
    store.setState({ errors });
    if (memoryBytes === undefined || tokens === undefined || 'model' in errors) return;
    latest += 1;
    const mine = latest;
    try {
      const plan = await client.api.plan({ model: model.trim(), memoryBytes, context: tokens });
      if (mine === latest) keep(plan);
    } catch (error) {
      if (mine !== latest || !(error instanceof CallError)) return;
      store.setState({ errors: { model: error.message } });
    }
  }

  /** Proofs are about one model at one context. */
  const keep = (plan: MemoryPlan): void =>
    store.setState(({ plan: before, proofs }) => {
      const isSame = plan.model === before?.model && plan.context === before.context;
      if (!isSame) isStopped = true;
      return { plan, errors: {}, proofs: isSame ? proofs : {} };
    });

  return {
    ...store,
    /** Plans now, and whenever a field changes. */
    start: async (): Promise<void> => {
      view.subscribe(({ planner }, before) => {
        if (planner === before.planner) return;
        clearTimeout(timer);
        timer = setTimeout(() => void ask(planner), settleMilliseconds);
      });
      await attempt(async () => store.setState({ models: await client.api.models({}) }));
      await ask(view.getState().planner);
    },
    highlight: (level: string): void =>
      store.setState(({ level: before }) => ({ level: before === level ? undefined : level })),
    /** Allocates caches of one level after the other until the limit refuses them. */
    prove: (levels: readonly string[], limitBytes: number): Promise<void> =>
      attempt(async () => {
        const { plan } = store.getState();
        if (!plan) return;
        const { model, context } = plan;
        isStopped = false;
        try {
          for (const level of levels) {
            store.setState({ proving: level });
            const row = await client.api.provePlan({ model, level, context, limitBytes });
            const now = store.getState().plan;
            if (now?.model === model && now.context === context)
              store.setState(({ proofs }) => ({ proofs: { ...proofs, [level]: row } }));
            if (isStopped) break;
          }
        } finally {
          store.setState({ proving: undefined });
        }
      }),
    /** After the level at hand. */
    stopProving: (): void => {
      isStopped = true;
    },
  };
}
