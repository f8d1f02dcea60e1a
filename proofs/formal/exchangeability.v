(* N5 over the reals: the integral over u in [0, 1] of P(Bin(M, u) <= C - 1) is min(1, C / (M + 1)), for all M and C.

   As in token_choice.v the binomial mass is the recursion over trials. *)

Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

Fixpoint mass (u : R) (m k : nat) : R :=
  match m, k with
  | O, O => 1
  | O, S _ => 0
  | S m', O => (1 - u) * mass u m' O
  | S m', S k' => u * mass u m' k' + (1 - u) * mass u m' (S k')
  end.

(* P(Bin(m, u) <= c - 1) *)
Fixpoint below (u : R) (m c : nat) : R :=
  match c with O => 0 | S c' => below u m c' + mass u m c' end.

(* P(Bin(m, u) = k - 1), zero at k = 0 *)
Definition previous (u : R) (m k : nat) : R := match k with O => 0 | S k' => mass u m k' end.

Lemma mass_S : forall u m k, mass u (S m) k = u * previous u m k + (1 - u) * mass u m k.
Proof. intros u m [|k]; simpl; ring. Qed.

(* d/du b(m, k) = m (b(m-1, k-1) - b(m-1, k)) *)
Lemma mass_derivative : forall m k u,
  is_derive (fun v => mass v (S m) k) u (INR (S m) * (previous u m k - mass u m k)).
Proof.
  induction m as [|m IH]; intros k u.
  - destruct k as [|[|k]]; simpl; auto_derive; trivial; simpl; ring.
  - assert (left_ : is_derive (fun v => previous v (S m) k) u
      (INR (S m) * (previous u m (pred k) - previous u m k) )).
    { destruct k as [|k]; simpl pred.
      - unfold previous. replace (INR (S m) * (0 - 0)) with 0 by ring. apply (is_derive_const 0).
      - apply IH. }
    apply (is_derive_ext (fun v => v * previous v (S m) k + (1 - v) * mass v (S m) k)).
    { intros v. symmetry. apply mass_S. }
    evar_last.
    { apply (is_derive_plus (fun v => v * previous v (S m) k) (fun v => (1 - v) * mass v (S m) k)).
      - apply (is_derive_mult (fun v => v) (fun v => previous v (S m) k) u 1).
        + apply (is_derive_id u).
        + exact left_.
        + intros x y. apply Rmult_comm.
      - apply (is_derive_mult (fun v => 1 - v) (fun v => mass v (S m) k) u (-1)).
        + auto_derive; trivial; ring.
        + apply IH.
        + intros x y. apply Rmult_comm. }
    change (1 * previous u (S m) k + u * (INR (S m) * (previous u m (pred k) - previous u m k)) +
      (-1 * mass u (S m) k + (1 - u) * (INR (S m) * (previous u m k - mass u m k))) =
      INR (S (S m)) * (previous u (S m) k - mass u (S m) k)).
    rewrite (S_INR (S m)), (mass_S u m k).
    replace (previous u (S m) k) with (match k with O => 0 | S k' => u * previous u m k' + (1 - u) * mass u m k' end)
      by (destruct k as [|k]; [reflexivity | simpl; symmetry; apply mass_S]).
    destruct k as [|k]; unfold pred; [unfold previous; ring | change (previous u m (S k)) with (mass u m k); ring].
Qed.

(* d/du P(Bin(M+1, u) <= c) = -(M+1) b(M, c): the sum telescopes *)
Lemma below_derivative : forall m c u,
  is_derive (fun v => below v (S m) (S c)) u (- INR (S m) * mass u m c).
Proof.
  intros m c u. induction c as [|c IH].
  - apply (is_derive_ext (fun v => mass v (S m) 0)).
    { intros v. simpl. ring. }
    evar_last. { apply mass_derivative. } simpl previous. ring.
  - apply (is_derive_ext (fun v => below v (S m) (S c) + mass v (S m) (S c))).
    { intros v. reflexivity. }
    evar_last.
    { apply (is_derive_plus (fun v => below v (S m) (S c)) (fun v => mass v (S m) (S c)) u).
      - exact IH.
      - apply mass_derivative. }
    unfold plus; simpl previous; simpl. ring.
Qed.

Lemma mass_continuous : forall m k u, continuous (fun v => mass v m k) u.
Proof.
  intros [|m] k u.
  - destruct k; simpl; apply continuous_const.
  - apply (ex_derive_continuous (fun v => mass v (S m) k) u). eexists. apply mass_derivative.
Qed.

Lemma mass_at_0 : forall m k, mass 0 m k = match k with O => 1 | S _ => 0 end.
Proof.
  induction m as [|m IH]; intros [|k]; simpl; trivial; rewrite !IH; ring.
Qed.

Lemma below_at_0 : forall m c, below 0 m (S c) = 1.
Proof.
  intros m c. induction c as [|c IH].
  - simpl. rewrite mass_at_0. ring.
  - change (below 0 m (S c) + mass 0 m (S c) = 1). rewrite IH, mass_at_0. ring.
Qed.

Lemma mass_at_1 : forall m k, mass 1 m k = if Nat.eqb k m then 1 else 0.
Proof.
  induction m as [|m IH]; intros [|k]; simpl; trivial; rewrite ?IH; simpl; ring_simplify; trivial.
Qed.

Lemma below_at_1 : forall m c, below 1 m c = if Nat.leb c m then 0 else 1.
Proof.
  intros m c. induction c as [|c IH]; [reflexivity|].
  change (below 1 m c + mass 1 m c = if Nat.leb (S c) m then 0 else 1). rewrite IH, mass_at_1.
  destruct (Nat.leb_spec c m), (Nat.eqb_spec c m), (Nat.leb_spec (S c) m); try lia; ring.
Qed.

(* every count from 0 to M has the same probability 1/(M+1), others none *)
Theorem uniform_count : forall M c,
  is_RInt (fun u => mass u M c) 0 1 (if Nat.leb c M then / INR (S M) else 0).
Proof.
  intros M c.
  assert (positive : INR (S M) <> 0) by (apply not_0_INR; discriminate).
  evar_last.
  { apply (is_RInt_derive (fun v => - / INR (S M) * below v (S M) (S c)) (fun v => mass v M c)).
    - intros u _. evar_last.
      { apply (is_derive_scal (fun v => below v (S M) (S c)) u (- / INR (S M))). apply below_derivative. }
      change (- / INR (S M) * (- INR (S M) * mass u M c) = mass u M c). field. exact positive.
    - intros u _. apply mass_continuous. }
  change (- / INR (S M) * below 1 (S M) (S c) - - / INR (S M) * below 0 (S M) (S c) =
    if Nat.leb c M then / INR (S M) else 0).
  rewrite below_at_0, below_at_1. change (Nat.leb (S c) (S M)) with (Nat.leb c M).
  destruct (Nat.leb c M); ring.
Qed.

Theorem exchangeability_identity : forall M C,
  is_RInt (fun u => below u M C) 0 1 (Rmin 1 (INR C / INR (S M))).
Proof.
  intros M C.
  assert (positive : 0 < INR (S M)) by (apply lt_0_INR, Nat.lt_0_succ).
  induction C as [|C IH].
  - evar_last. { apply (is_RInt_const 0 1 0). }
    unfold scal; simpl; unfold mult; simpl. unfold Rdiv. rewrite Rmult_0_l, Rmin_right; lra.
  - evar_last.
    { apply (is_RInt_plus (fun u => below u M C) (fun u => mass u M C)); [exact IH | apply uniform_count]. }
    unfold plus; cbv beta. cbn -[INR Rmin].
    destruct (Nat.leb_spec C M) as [le|gt].
    + assert (C1 : INR (S C) <= INR (S M)) by (apply le_INR; lia).
      assert (C0 : INR C <= INR (S M)) by (apply le_INR; lia).
      rewrite !Rmin_right.
      * rewrite (S_INR C). field. lra.
      * apply (Rmult_le_reg_r (INR (S M))); trivial. unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra.
      * apply (Rmult_le_reg_r (INR (S M))); trivial. unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra.
    + assert (C1 : INR (S M) <= INR (S C)) by (apply le_INR; lia).
      assert (C0 : INR (S M) <= INR C) by (apply le_INR; lia).
      rewrite !Rmin_left.
      * ring.
      * apply (Rmult_le_reg_r (INR (S M))); trivial. unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra.
      * apply (Rmult_le_reg_r (INR (S M))); trivial. unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra.
Qed.
