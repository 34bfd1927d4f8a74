import type { components } from './schema.gen';

type Schemas = components['schemas'];

export type Identity = Schemas['Identity'];
export type Run = Schemas['Run'];
export type RunReport = NonNullable<Run['report']>;
export type SiteReport = NonNullable<RunReport['sites']>[number];
export type Score = NonNullable<RunReport['federated']>;
export type Model = Schemas['Model'];
export type ModelVersion = Schemas['ModelVersion'];
export type Signature = Schemas['Signature'];
export type Statistics = Schemas['Statistics'];
export type Deployment = Schemas['Deployment'];
export type Federation = Schemas['Federation'];
export type Prediction = Schemas['Prediction'];
export type Explanation = NonNullable<Prediction['explanation']>;

/** A page of a listing; no cursor on the last one. */
export interface IPage<T> {
  items: T[];
  next_cursor: string | null;
}

/** What happened, as the streams tell it. */
export interface IPlatformEvent {
  stream: string;
  sequence: number;
  type: string;
  data: Record<string, unknown>;
  created_at: string;
}

/** What the Jupyter server knows about the platform; asking never starts one. */
export interface IPlatformStatus {
  state: 'running' | 'stopped' | 'unreachable';
  kind: 'sandbox' | 'platform';
  version: string | null;
  protocol: number;
  identity: Identity | null;
  message: string | null;
}

export interface ITutorial {
  name: string;
  title: string;
}
